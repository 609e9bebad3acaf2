"""The common part of exported graphs: normalisation, padding, folded norms."""

import torch
import torch.nn.functional as F
from detectron2.modeling import SemanticSegmentor
from torch import nn

from eseg_d2.modeling.fuse import fuse_conv_norm
from eseg_d2.modeling.meta_arch.panoptic_rcnn import PanopticRCNN

__all__ = ["ImageGraph"]


class ImageGraph(nn.Module):
    """A model as a function of tensors, from one image to the outputs in ``output_names``.

    Batch norms are folded into convolutions; see
    :func:`~eseg_d2.modeling.fuse.fuse_conv_norm`.

    Attributes:
        output_names: names of the outputs, in order.
        instance_outputs: names of the outputs with one row for each instance.
        divisibility: the graph pads the sides of images to multiples of it.
    """

    output_names: list[str]
    instance_outputs: list[str] = []

    def __init__(self, model: SemanticSegmentor | PanopticRCNN):
        """
        Args:
            model: model in evaluation mode; not changed.
        """
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
