"""Panoptic segmentation in the style of Panoptic FPN, for any backbone and semantic head."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, PanopticFPN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import ImageList, Instances
from torch import nn

from eseg_d2.layers.label_map import label_map
from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.modeling.sem_seg.head import logits_at_stride, logits_stride, upsample_logits
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.structures.mask_crops import MaskCrops
from eseg_d2.utils.errors import check_choice

__all__ = ["PanopticRCNN", "detect", "run_trunk", "scale_instances"]

INITS = ("pretrained", "scratch")


@META_ARCH_REGISTRY.register()
class PanopticRCNN(PanopticFPN):
    """Mask R-CNN and a semantic head on one backbone, merged into panoptic segmentation.

    It is Detectron2's ``PanopticFPN`` with two differences that make it work on any panoptic data
    set, Cityscapes included: the label space of the data set says what is a thing, and every
    class id in the output is a contiguous id, by which the data set's metadata names classes.
    """

    @configurable
    def __init__(self, *, label_space: LabelSpace, init: str = "pretrained", **kwargs):
        """
        Args:
            label_space: of the data set.
            init: "pretrained" leaves the detector's initial weights as Detectron2 draws them, for
                wide pyramids on pretrained backbones; "scratch" draws those of the proposals and
                boxes larger, without which a narrow model that starts from random weights hardly
                learns to find things (docs/design.md).
            **kwargs: of :class:`PanopticFPN`, whose three ``combine_`` thresholds are those of
                :func:`merge_panoptic`.
        """
        super().__init__(**kwargs)
        check_choice("MODEL.PANOPTIC.INIT", init, INITS)
        if init == "scratch":
            _draw_larger_weights(self)
        self.label_space = label_space
        self.merge_options = {
            "overlap_threshold": self.combine_overlap_thresh,
            "stuff_area_limit": self.combine_stuff_area_thresh,
            "score_threshold": self.combine_instances_score_thresh,
        }

    @classmethod
    def from_config(cls, cfg):
        names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
        if not names:
            raise ValueError(
                "DATASETS.TRAIN and DATASETS.TEST are empty: one must name the classes"
            )
        label_space = LabelSpace.from_metadata(
            MetadataCatalog.get(names[0]), cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
        )
        _check_class_counts(cfg, label_space)
        return {
            **super().from_config(cfg),
            "label_space": label_space,
            "init": cfg.MODEL.PANOPTIC.INIT,
        }

    def forward(self, batched_inputs: list[dict]):
        """
        Args:
            batched_inputs: one dict an image: ``image`` (3, H, W), 0..255; in training also
                ``sem_seg`` (H, W), semantic train ids, and ``instances``, with ROI classes; in
                inference optionally ``height`` and ``width``, the output's size in pixels.

        Returns:
            In training a dict of scalar losses. In inference one dict an image:

            - ``sem_seg``: (number of semantic classes, height, width), logits;
            - ``instances``: with ``pred_boxes``, ``pred_masks``, ``scores`` and
              ``pred_classes`` (contiguous ids);
            - ``panoptic_seg``: as of :func:`merge_panoptic`.

        Raises:
            ValueError: a training input lacks its targets.
        """
        if self.training:
            _require_targets(batched_inputs)
        return super().forward(batched_inputs)

    def inference(self, batched_inputs: list[dict], do_postprocess: bool = True):
        """Predict; see :meth:`forward`. Without post-processing return the raw (instances, logits),
        which are in the network's input size and, for the instances, in ROI classes."""
        assert not self.training
        images = self.preprocess_image(batched_inputs)
        features, logits = run_trunk(self, images.tensor)
        assert logits is not None  # this model has a semantic head
        detections = detect(self, images, features)
        if not do_postprocess:
            return detections, upsample_logits(self.sem_seg_head, logits)
        return [
            self.finish(logits[i], detections[i], size, (x.get("height"), x.get("width")))
            for i, (x, size) in enumerate(zip(batched_inputs, images.image_sizes, strict=True))
        ]

    def finish(
        self,
        logits: torch.Tensor,
        detections: Instances,
        image_size: tuple[int, int],
        output_size: tuple[int | None, int | None],
        *,
        compact: bool = False,
    ) -> dict:
        """Bring logits and detections of one image to the output's size, and merge them.

        Args:
            logits: (number of semantic classes, h, w), at the head's stride.
            detections: of :func:`detect`; their boxes are changed.
            image_size: (H, W) of the image as the network saw it, without padding.
            output_size: (height, width) of the output; None is the side of ``image_size``.
            compact: return labels in place of logits (for a photograph of 12 megapixels they take
                a gigabyte), and the masks of the instances as :class:`MaskCrops`.

        Returns:
            As :meth:`forward`; if compact, ``sem_seg`` is (height, width) uint8 semantic train
            ids.
        """
        size = output_size[0] or image_size[0], output_size[1] or image_size[1]
        head = self.sem_seg_head
        labels = label_map(
            logits[None], stride=logits_stride(head), image_size=image_size, output_size=size
        )[0]
        instances = scale_instances(detections, size)
        contiguous = torch.as_tensor(self.label_space.roi_to_contiguous, device=self.device)
        instances.pred_classes = contiguous[instances.pred_classes]
        panoptic = merge_panoptic(instances, labels, self.label_space, **self.merge_options)
        if compact:
            sem_seg = labels
        else:
            sem_seg = sem_seg_postprocess(upsample_logits(head, logits[None])[0], image_size, *size)
            instances.pred_masks = instances.pred_masks.tensor(self.device)
        return {"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic}


def _draw_larger_weights(model: PanopticFPN) -> None:
    """Detectron2 draws all of these from N(0, 0.01), the boxes' deltas from N(0, 0.001)."""
    proposals = model.proposal_generator.rpn_head
    for module in proposals.conv.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(proposals.anchor_deltas.weight, std=0.02)
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.01)


def run_trunk(model: Any, x: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Run the backbone and the semantic head: all that has no data-dependent shapes.

    Args:
        model: any of Detectron2's or ours with a backbone, in evaluation mode.
        x: (B, 3, H, W), normalised and padded.

    Returns:
        The features, and the logits (B, C, h, w) at the head's stride; None without such a head.
    """
    features = model.backbone(x)
    if not hasattr(model, "sem_seg_head"):
        return features, None
    return features, logits_at_stride(model.sem_seg_head, features)


def detect(model: Any, images: ImageList, features: dict[str, torch.Tensor]) -> list[Instances]:
    """Run what finds objects, of an R-CNN or a dense detector such as RetinaNet.

    Returns:
        For each image the detections; ``pred_masks``, where there are any, are those of the boxes:
        (N, 1, M, M).
    """
    if isinstance(model, DenseDetector):
        levels = [features[name] for name in model.head_in_features]
        return model.forward_inference(images, levels, model.head(levels))
    proposals, _ = model.proposal_generator(images, features, None)
    return model.roi_heads(images, features, proposals, None)[0]


def scale_instances(detections: Instances, size: tuple[int, int]) -> Instances:
    """Do what Detectron2's ``detector_postprocess`` does, but keep masks inside their boxes.

    Args:
        detections: of :func:`detect`; their boxes are changed.
        size: (H, W) of the output.

    Returns:
        The instances whose boxes are not empty; ``pred_masks`` are :class:`MaskCrops`.
    """
    fields = dict(detections.get_fields())
    masks = fields.pop("pred_masks", None)
    if masks is not None:
        fields["box_masks"] = masks[:, 0]  # a name that it does not know: not to be pasted
    found = detector_postprocess(Instances(detections.image_size, **fields), *size)
    if masks is not None:
        found.pred_masks = MaskCrops.paste(found.box_masks, found.pred_boxes.tensor, size)
        found.remove("box_masks")
    return found


def _require_targets(batched_inputs: list[dict]) -> None:
    for x in batched_inputs:
        missing = [key for key in ("sem_seg", "instances") if key not in x]
        if missing:
            raise ValueError(
                f"the input of {x.get('file_name', 'an image')} lacks {' and '.join(missing)}: "
                "PanopticRCNN trains on what eseg_d2.data.mapper.PanopticMapper makes. Override "
                "build_train_loader of your trainer to return build_detection_train_loader(cfg, "
                "mapper=PanopticMapper(cfg, cfg.DATASETS.TRAIN[0])), as docs/extending.md shows."
            )


def _check_class_counts(cfg, label_space: LabelSpace) -> None:
    for key, got, expected in (
        ("SEM_SEG_HEAD", cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, label_space.num_semantic),
        ("ROI_HEADS", cfg.MODEL.ROI_HEADS.NUM_CLASSES, label_space.num_things),
    ):
        if got != expected:
            raise ValueError(
                f"MODEL.{key}.NUM_CLASSES is {got}, but the data set has {expected} "
                f"(MODEL.PANOPTIC.SEMANTIC_CLASSES {label_space.semantic_classes!r}). "
                "Set it so, or make the config by eseg_d2.load_config, which does"
            )
