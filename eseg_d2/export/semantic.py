"""A semantic model as one graph, from the image to the label map."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from eseg_d2.engine.predictor import logits_at_stride
from eseg_d2.modeling.fuse import fuse_conv_norm

__all__ = ["FORMATS", "SemanticGraph", "export_graph", "load_exported"]

FORMATS = {"onnx": "model.onnx", "torchscript": "model.ts", "torch_export": "model.pt2"}
OPSET = 18


class SemanticGraph(nn.Module):
    """Normalises, pads, runs the model, upsamples and takes the best class.

    Batch norms are folded into convolutions; see
    :func:`~eseg_d2.modeling.fuse.fuse_conv_norm`.
    """

    def __init__(self, model: nn.Module, *, with_logits: bool):
        """
        Args:
            model: a SemanticSegmentor in evaluation mode; not changed.
            with_logits: return the logits, too.
        """
        super().__init__()
        self.with_logits = with_logits
        self.divisibility = max(model.backbone.size_divisibility, 1)
        self.stride = model.sem_seg_head.common_stride
        fused = fuse_conv_norm(model)
        self.backbone, self.head = fused.backbone, fused.sem_seg_head
        self.register_buffer("mean", model.pixel_mean.clone())
        self.register_buffer("std", model.pixel_std.clone())

    def forward(self, image: torch.Tensor):
        """
        Args:
            image: (1, 3, H, W) float32, 0 .. 255, channels as INPUT.FORMAT says.

        Returns:
            (1, H, W) int64 labels; with logits a tuple of them and (1, num_classes, H, W) float32.
        """
        height, width = image.shape[-2:]
        step = self.divisibility
        x = (image - self.mean) / self.std
        bottom = (height + step - 1) // step * step - height
        right = (width + step - 1) // step * step - width
        x = F.pad(x, (0, right, 0, bottom))
        logits = logits_at_stride(self.head, self.backbone(x))
        logits = F.interpolate(
            logits, scale_factor=float(self.stride), mode="bilinear", align_corners=False
        )[:, :, :height, :width]
        labels = logits.argmax(1)
        return (labels, logits) if self.with_logits else labels


def export_graph(
    graph: SemanticGraph, folder: Path, kind: str, size: tuple[int, int], *, dynamic: bool
) -> Path:
    """Write a model file; inputs "image", outputs "labels" and, if asked for, "logits".

    Args:
        graph: on the CPU.
        folder: made if it is not there.
        kind: of FORMATS.
        size: (H, W) of the images, in pixels; of the example if ``dynamic``.
        dynamic: H and W may be any from the model's divisibility on.

    Returns:
        The file's path.

    Raises:
        ValueError: this model cannot be exported so.
    """
    if dynamic and kind == "torch_export":
        raise ValueError(
            "torch_export with --dynamic: torch.export ties the sizes of a pyramid to those of the "
            "example. Take --format onnx, or a fixed --size."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FORMATS[kind]
    example = torch.rand(1, 3, *size) * 255
    outputs = ["labels", "logits"][: 1 + graph.with_logits]
    try:
        with torch.no_grad():
            if kind == "torchscript":
                torch.jit.trace(graph, example, check_trace=False).save(str(path))
            elif kind == "torch_export":
                torch.export.save(torch.export.export(graph, (example,)), path)
            else:
                torch.onnx.export(
                    graph,
                    (example,),
                    str(path),
                    input_names=["image"],
                    output_names=outputs,
                    dynamic_axes={"image": {2: "height", 3: "width"}} if dynamic else None,
                    opset_version=OPSET,
                    dynamo=False,
                )
    except Exception as e:  # exporters raise all kinds of errors
        path.unlink(missing_ok=True)
        how = "with --dynamic" if dynamic else f"at {size[0]}x{size[1]}"
        raise ValueError(
            f"this model cannot be exported as {kind} {how}: {type(e).__name__}: {e}\n"
            "  Try another --format, or a fixed --size."
        ) from e
    return path


def load_exported(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from an image, (1, 3, H, W) float32, to the model's outputs, on the CPU.

    Args:
        path: what :func:`export_graph` wrote.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    if path.suffix == ".onnx":
        try:
            import onnxruntime
        except ModuleNotFoundError as e:
            message = "running an onnx file needs onnxruntime: pip install onnxruntime onnxscript"
            raise ValueError(message) from e
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"image": image})
    if path.suffix == ".ts":
        module = torch.jit.load(str(path))
    else:
        module = torch.export.load(path).module()

    def run(image):
        with torch.no_grad():
            outputs = module(torch.from_numpy(image))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [x.numpy() for x in outputs]

    return run
