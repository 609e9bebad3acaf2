"""Semantic segmentation averaged over scales and flips of the image."""

import torch
from detectron2.config import configurable
from detectron2.data.transforms import HFlipTransform
from detectron2.modeling import DatasetMapperTTA
from torch import nn

__all__ = ["SemanticTTA"]


class SemanticTTA(nn.Module):
    """A semantic model that sees each image in several sizes, as it is and mirrored.

    The class probabilities are averaged at the output's size (the usual "multi-scale, flip" of the
    papers' tables; the papers do not say how they average). Configured by Detectron2's keys
    TEST.AUG.MIN_SIZES, MAX_SIZE and FLIP.
    """

    @configurable
    def __init__(self, model: nn.Module, *, mapper: DatasetMapperTTA):
        """
        Args:
            model: a SemanticSegmentor; not changed.
            mapper: makes the versions of an image.
        """
        super().__init__()
        self.model = model
        self.mapper = mapper

    @classmethod
    def from_config(cls, cfg, model: nn.Module):
        return {"model": model, "mapper": DatasetMapperTTA(cfg)}

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """
        Args:
            batched_inputs: one dict an image: ``image`` (3, H, W), 0..255, and optionally
                ``height`` and ``width``, the output's size in pixels.

        Returns:
            One dict an image: ``sem_seg`` (number of classes, height, width), probabilities.
        """
        return [{"sem_seg": self._average(item)} for item in batched_inputs]

    def _average(self, item: dict) -> torch.Tensor:
        height, width = item["image"].shape[1:]
        item = {"height": height, "width": width, **item, "image": item["image"].cpu()}
        versions = self.mapper(item)
        total = torch.zeros(())
        for version in versions:
            probabilities = self.model([version])[0]["sem_seg"].softmax(dim=0)
            mirrored = any(isinstance(t, HFlipTransform) for t in version["transforms"].transforms)
            total = total + (probabilities.flip(2) if mirrored else probabilities)
        return total / len(versions)
