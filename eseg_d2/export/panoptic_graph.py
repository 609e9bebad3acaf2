"""A panoptic model as one graph, from the image to the raw predictions."""

import torch
from detectron2.structures import ImageList

from eseg_d2.export.image_graph import ImageGraph
from eseg_d2.modeling.meta_arch.panoptic_rcnn import PanopticRCNN
from eseg_d2.modeling.sem_seg.head import logits_at_stride

__all__ = ["PanopticGraph", "merge_settings"]


class PanopticGraph(ImageGraph):
    """The learned part of a PanopticRCNN.

    :func:`~eseg_d2.export.merge.merge_panoptic` merges its outputs to a panoptic map.
    """

    instance_outputs = ["boxes", "scores", "classes", "masks"]
    output_names = ["semantic", *instance_outputs]
    roi_to_contiguous: torch.Tensor

    def __init__(self, model: PanopticRCNN):
        """
        Args:
            model: in evaluation mode; not changed.
        """
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
