"""Models as graphs to export, from the image to labels or raw panoptic predictions."""

import torch
import torch.nn.functional as F
from detectron2.modeling import SemanticSegmentor
from detectron2.structures import ImageList
from torch import nn

from eseg_d2.modeling.folding import fuse_conv_norm
from eseg_d2.modeling.meta_arch.panoptic_rcnn import PanopticRCNN
from eseg_d2.modeling.sem_seg.head import logits_at_stride

__all__ = ["ImageGraph", "PanopticGraph", "SemanticGraph", "merge_settings"]


class ImageGraph(nn.Module):
    """A model as a function of tensors, from one image to the outputs in ``output_names``.

    Batch norms are folded into convolutions; see
    :func:`~eseg_d2.modeling.folding.fuse_conv_norm`.

    Attributes:
        output_names: names of the outputs, in order.
        instance_outputs: names of the outputs with one row for each instance.
        divisibility: the graph pads the sides of images to multiples of it.
    """

    output_names: list[str]
    instance_outputs: list[str] = []

    def __init__(self, model: SemanticSegmentor | PanopticRCNN):
        """Take a model in evaluation mode, which is not changed."""
        super().__init__()
        # not on the class, where torch.jit would read the type
        self.model: SemanticSegmentor | PanopticRCNN = fuse_conv_norm(model)
        self.divisibility = max(model.backbone.size_divisibility, 1)

    def features(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the backbone's features of an image, (1, 3, H, W) float32, 0 .. 255."""
        height, width = image.shape[-2:]
        step = self.divisibility
        x = (image - self.model.pixel_mean) / self.model.pixel_std
        bottom = (height + step - 1) // step * step - height
        right = (width + step - 1) // step * step - width
        return self.model.backbone(F.pad(x, (0, right, 0, bottom)))

    def best_class(
        self, logits: torch.Tensor, size: torch.Size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labels and logits in the image's ``size`` (H, W), from logits at the stride."""
        stride = float(self.model.sem_seg_head.common_stride)
        logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
        # crop the labels after the argmax, which is cheaper than cropping the logits before
        return logits.argmax(1)[:, : size[0], : size[1]], logits[:, :, : size[0], : size[1]]


class SemanticGraph(ImageGraph):
    """A graph that normalises, pads, runs the model, upsamples, and takes the argmax."""

    def __init__(self, model: SemanticSegmentor, *, with_logits: bool):
        """Take a model in evaluation mode, which is not changed."""
        super().__init__(model)
        self.output_names = ["labels", "logits"] if with_logits else ["labels"]

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the labels of an image.

        Args:
            image: (1, 3, H, W) float32, 0 .. 255, with its channels in the order of INPUT.FORMAT.

        Returns:
            (1, H, W) int64 labels; with logits, a tuple of these and (1, num_classes, H, W)
            float32.
        """
        logits = logits_at_stride(self.model.sem_seg_head, self.features(image))
        outputs = self.best_class(logits, image.shape[-2:])
        return outputs if "logits" in self.output_names else outputs[0]


class PanopticGraph(ImageGraph):
    """The learned part of a PanopticRCNN.

    :func:`~eseg_d2.export.merge.merge_panoptic` merges its outputs to a panoptic map.
    """

    instance_outputs = ["boxes", "scores", "classes", "masks"]
    output_names = ["semantic", *instance_outputs]
    roi_to_contiguous: torch.Tensor

    def __init__(self, model: PanopticRCNN):
        super().__init__(model)
        contiguous = torch.as_tensor(model.label_space.roi_to_contiguous)
        self.register_buffer("roi_to_contiguous", contiguous, persistent=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the raw predictions for an image.

        Args:
            image: (1, 3, H, W) float32, 0 .. 255, with its channels in the order of INPUT.FORMAT.

        Returns:
            - semantic: (H, W) int64, semantic train ids;
            - boxes: (N, 4) float32, x0, y0, x1, y1 in pixels;
            - scores: (N,) float32, 0 .. 1, descending;
            - classes: (N,) int64, contiguous ids;
            - masks: (N, M, M) float32, 0 .. 1, relative to the box.
        """
        model, size = self.model, image.shape[-2:]
        features = self.features(image)
        labels, _ = self.best_class(logits_at_stride(model.sem_seg_head, features), size)
        # as in the model: its features are padded, and its boxes are clipped to the image
        images = ImageList(image, [(size[0], size[1])])
        proposals, _ = model.proposal_generator(images, features, None)
        detections, _ = model.roi_heads(images, features, proposals, None)
        found = detections[0]
        classes = self.roi_to_contiguous[found.pred_classes]
        return labels[0], found.pred_boxes.tensor, found.scores, classes, found.pred_masks[:, 0]


def merge_settings(model: PanopticRCNN) -> dict:
    """Return the settings of :func:`~eseg_d2.export.merge.merge_panoptic` for a model.

    Returns:
        A dict of plain numbers and lists, for a json file.
    """
    space = model.label_space
    return {
        "names": list(space.names),
        "is_thing": [bool(x) for x in space.is_thing],
        "semantic_to_contiguous": [int(x) for x in space.semantic_to_contiguous],
        **model.merge_options,
    }
