"""Panoptic segmentation in the style of Panoptic FPN, for any backbone and semantic head."""

import torch
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from torch import nn

from eseg_d2.layers.label_map import label_map
from eseg_d2.modeling.meta_arch.merge import merge_panoptic
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.errors import check_choice

__all__ = ["PanopticRCNN"]

INITS = ("pretrained", "scratch")


@META_ARCH_REGISTRY.register()
class PanopticRCNN(PanopticFPN):
    """Mask R-CNN and a semantic head on one backbone, merged into panoptic segmentation.

    It is Detectron2's ``PanopticFPN`` with two differences that make it work on any panoptic data
    set, Cityscapes included: the label space of the data set says what is a thing, and every
    class id in the output is a contiguous id, by which the data set's metadata names classes.

    Attributes:
        semantic_labels: False; if set to True the ``sem_seg`` of the output is a label map, and the
            logits, which take a gigabyte for a photograph of 12 megapixels, are not resized.
    """

    semantic_labels = False

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

            - ``sem_seg``: (number of semantic classes, height, width), logits; or with
              ``semantic_labels`` (height, width) int64, their argmax;
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
        """See :meth:`forward`; without post-processing the raw (instances, logits), which are in
        the network's input size and, for the instances, in ROI classes."""
        assert not self.training
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        logits, _ = self.sem_seg_head(features, None)
        proposals, _ = self.proposal_generator(images, features, None)
        detections, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return detections, logits
        return [
            self._postprocess(*outputs)
            for outputs in zip(logits, detections, batched_inputs, images.image_sizes, strict=True)
        ]

    def _postprocess(self, logits, detections, inputs: dict, image_size: tuple[int, int]) -> dict:
        height = inputs.get("height", image_size[0])
        width = inputs.get("width", image_size[1])
        labels = label_map(
            logits[None], stride=1, image_size=image_size, output_size=(height, width)
        )[0]
        if self.semantic_labels:
            sem_seg = labels
        else:
            sem_seg = sem_seg_postprocess(logits, image_size, height, width)
        instances = detector_postprocess(detections, height, width)
        contiguous = torch.as_tensor(self.label_space.roi_to_contiguous, device=self.device)
        instances.pred_classes = contiguous[instances.pred_classes]
        panoptic = merge_panoptic(instances, labels, self.label_space, **self.merge_options)
        return {"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic}


def _draw_larger_weights(model: PanopticFPN) -> None:
    """Detectron2 draws all of these from N(0, 0.01), the boxes' deltas from N(0, 0.001)."""
    proposals = model.proposal_generator.rpn_head
    for module in proposals.conv.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(proposals.anchor_deltas.weight, std=0.02)
    nn.init.normal_(model.roi_heads.box_predictor.bbox_pred.weight, std=0.01)


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
