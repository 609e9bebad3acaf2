"""Model files: written by PyTorch's exporters, read by what runs them."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eseg_d2.export.image_graph import ImageGraph

__all__ = ["FORMATS", "export_graph", "load_exported", "onnx_session"]

FORMATS = {"onnx": "model.onnx", "torchscript": "model.ts", "torch_export": "model.pt2"}
OPSET = 18


def export_graph(
    graph: ImageGraph, folder: Path, kind: str, example: np.ndarray, *, dynamic: bool
) -> Path:
    """Write a model file; its input is "image", its outputs are the graph's.

    Args:
        graph: on the CPU.
        folder: made if it is not there.
        kind: of FORMATS.
        example: (1, 3, H, W) float32, an image of the size that the file is for.
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
    inputs = (torch.from_numpy(example),)
    try:
        with torch.no_grad(), _without_warnings():
            if kind == "torchscript":
                torch.jit.trace(graph, inputs, check_trace=False).save(str(path))
            elif kind == "torch_export":
                torch.export.save(torch.export.export(graph, inputs), path)
            else:
                axes = {name: {0: "instances"} for name in graph.instance_outputs}
                if dynamic:
                    axes["image"] = {2: "height", 3: "width"}
                _export_onnx(graph, inputs, str(path), graph.output_names, axes)
    except Exception as e:  # exporters raise all kinds of errors
        path.unlink(missing_ok=True)
        how = "with --dynamic" if dynamic else "at {}x{}".format(*example.shape[-2:])
        raise ValueError(
            f"this model cannot be exported as {kind} {how}: {type(e).__name__}: {e}\n"
            "  Try another --format, or a fixed --size."
        ) from e
    return path


@contextlib.contextmanager
def _without_warnings():
    """Exporters warn of every branch that a trace keeps; here the file is verified instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _export_onnx(
    module: nn.Module, inputs: tuple, file, output_names: list[str], axes: dict[str, dict]
) -> None:
    torch.onnx.export(
        module,
        inputs,
        file,
        input_names=["image"],
        output_names=output_names,
        dynamic_axes=axes or None,
        opset_version=OPSET,
        dynamo=False,
    )


def onnx_session(module: nn.Module, example: torch.Tensor):
    """An onnxruntime session of a module with one input, "image", and one output.

    It runs on the CPU with as many threads as PyTorch.

    Args:
        module: in evaluation mode, on the CPU.
        example: its input, of the shape that the session is for.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    file = io.BytesIO()
    with torch.no_grad(), _without_warnings():
        _export_onnx(module, (example,), file, ["logits"], {})
    return _open_session(file.getvalue())


def _open_session(model: str | bytes):
    try:
        import onnxruntime
    except ModuleNotFoundError as e:
        message = "running an onnx file needs onnxruntime: pip install onnxruntime onnxscript"
        raise ValueError(message) from e
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_exported(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function from an image, (1, 3, H, W) float32, to the model's outputs, on the CPU.

    Args:
        path: what :func:`export_graph` wrote.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    if path.suffix == ".onnx":
        session = _open_session(str(path))
        return lambda image: session.run(None, {"image": image})
    if path.suffix == ".ts":
        import torchvision  # noqa: F401  # its operators, which panoptic models use

        with _without_warnings():
            module = torch.jit.load(str(path))
    else:
        module = torch.export.load(path).module()

    def run(image):
        with torch.no_grad():
            outputs = module(torch.from_numpy(image))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [x.numpy() for x in outputs]

    return run
