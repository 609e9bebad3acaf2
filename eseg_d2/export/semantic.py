"""A semantic model as one graph, from the image to the label map."""

import torch
from detectron2.modeling import SemanticSegmentor

from eseg_d2.export.image_graph import ImageGraph
from eseg_d2.modeling.sem_seg.head import logits_at_stride

__all__ = ["SemanticGraph"]


class SemanticGraph(ImageGraph):
    """A graph that normalises, pads, runs the model, upsamples, and takes the argmax."""

    def __init__(self, model: SemanticSegmentor, *, with_logits: bool):
        """
        Args:
            model: in evaluation mode; not changed.
            with_logits: also return the logits.
        """
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
