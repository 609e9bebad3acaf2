"""From an image to a label map, fast: for semantic models with the switches of inference."""

import contextlib

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.projects.deeplab import DeepLabV3Head
from torch import nn

from eseg_d2.engine import load_trained
from eseg_d2.layers.label_map import label_map
from eseg_d2.modeling.fuse import fuse_conv_norm

__all__ = ["SemanticPredictor", "logits_at_stride"]


class SemanticPredictor:
    """Like Detectron2's ``DefaultPredictor``, for a semantic model; gives labels, not logits.

    The three steps can be called one by one: :meth:`preprocess`, :meth:`network`,
    :meth:`postprocess`.

    Attributes:
        module: what :meth:`network` runs, from the batch to the logits.
    """

    def __init__(
        self,
        cfg,
        *,
        fuse: bool = True,
        channels_last: bool = False,
        autocast: torch.dtype | None = None,
        compile: bool = False,
    ):
        """
        Args:
            cfg: of a SemanticSegmentor; MODEL.WEIGHTS is loaded, "" leaves random weights.
            fuse: fold batch norms into convolutions.
            channels_last: run convolutions in that memory format.
            autocast: ``torch.bfloat16`` or ``torch.float16`` to compute in mixed precision.
            compile: by torch.compile (needs a compiler); with CUDA graphs on a GPU.

        Raises:
            ValueError: the model is not a semantic one.
            FileNotFoundError: the weights cannot be had.
        """
        model = load_trained(cfg, architectures=("SemanticSegmentor",))
        self.stride = model.sem_seg_head.common_stride
        self.divisibility = max(model.backbone.size_divisibility, 1)
        self.input_format = cfg.INPUT.FORMAT
        self.resize = T.ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )
        self.device = torch.device(cfg.MODEL.DEVICE)
        self.pixel_mean, self.pixel_std = model.pixel_mean, model.pixel_std
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._autocast = autocast
        model = fuse_conv_norm(model) if fuse else model
        model = model.to(memory_format=self._layout)
        self.module = self._run = _Network(model.backbone, model.sem_seg_head).eval()
        if compile:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._run = torch.compile(self.module, mode=mode)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """
        Args:
            image: (H, W, 3) uint8 BGR.

        Returns:
            (H, W) uint8 class indices (semantic train ids).
        """
        x, size = self.preprocess(image)
        return self.postprocess(self.network(x), size, image.shape[:2])

    @torch.no_grad()
    def preprocess(self, image: np.ndarray) -> tuple[torch.Tensor, tuple[int, int]]:
        """The normalised and padded (1, 3, H', W') batch, and the (H, W) of the image in it."""
        if self.input_format == "RGB":
            image = image[:, :, ::-1]
        image = self.resize.get_transform(image).apply_image(np.ascontiguousarray(image))
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self.device)
        x = (x.float() - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        bottom, right = -height % self.divisibility, -width % self.divisibility
        x = torch.nn.functional.pad(x, (0, right, 0, bottom))[None]
        return x.contiguous(memory_format=self._layout), (height, width)

    @torch.no_grad()
    def network(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits at the head's resolution: (1, num_classes, H' / stride, W' / stride), fp32.

        They are the caller's own: a later call does not change them.
        """
        context = contextlib.nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self.device.type, dtype=self._autocast)
        with context:
            # a copy: with CUDA graphs the network writes into the same memory at each call
            return self._run(x).to(torch.float32, copy=True)

    @torch.no_grad()
    def postprocess(
        self, logits: torch.Tensor, image_size: tuple[int, int], output_size: tuple[int, int]
    ) -> np.ndarray:
        """(H, W) uint8 labels of the output's size."""
        labels = label_map(
            logits, stride=self.stride, image_size=image_size, output_size=output_size
        )
        return labels[0].to(torch.uint8).cpu().numpy()


class _Network(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return logits_at_stride(self.head, self.backbone(x))


def logits_at_stride(head, features: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits of a semantic head before it upsamples them by its ``common_stride``.

    Args:
        head: ours, or Detectron2's SemSegFPNHead or DeepLab's; in evaluation mode.
        features: the backbone's.
    """
    if isinstance(head, DeepLabV3Head):  # the one that has no method for it
        return head.predictor(head.aspp(features[head.in_features[0]]))
    return head.layers(features)
