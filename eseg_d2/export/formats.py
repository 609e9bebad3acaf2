"""Write model files with PyTorch's exporters, and load them in their runtimes."""

import collections
import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eseg_d2.export.graphs import ImageGraph

__all__ = ["FORMATS", "export_graph", "load_exported", "load_onnx", "onnx_session"]

FORMATS = {"onnx": "model.onnx", "torchscript": "model.ts", "torch_export": "model.pt2"}
OPSET = 18


def export_graph(
    graph: ImageGraph, folder: Path, kind: str, example: np.ndarray, *, dynamic: bool
) -> Path:
    """Write a model file; its input is "image", its outputs are the graph's.

    Args:
        graph: the model to export, on the CPU.
        folder: created if missing.
        kind: one of FORMATS.
        example: (1, 3, H, W) float32, an image of the size that the file is for.
        dynamic: allow any H and W, from the model's divisibility on.

    Returns:
        The path of the file.

    Raises:
        ValueError: this model cannot be exported in this way.
    """
    if dynamic and kind == "torch_export":
        raise ValueError(
            "torch_export with --dynamic: torch.export ties the sizes of a pyramid to those of the "
            "example. Use --format onnx, or a fixed --size."
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
                _argmax_over_last_axis(path)
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
    """Silence exporters, which warn of every branch in a trace: the file is verified instead."""
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


def _argmax_over_last_axis(path: Path) -> None:
    """Resize the logits and take the argmax channels last, twice as fast in onnxruntime.

    Nothing changes where the resized logits are also used otherwise, or are not a convolution's.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    users = collections.Counter(name for node in graph.node for name in node.input)
    makers = {name: node for node in graph.node for name in node.output}
    dims = {tensor.name: tensor.dims for tensor in graph.initializer}
    for argmax in [node for node in graph.node if node.op_type == "ArgMax"]:
        resize = makers[argmax.input[0]]
        if resize.op_type != "Resize" or users[resize.output[0]] > 1:
            continue
        predictor = makers[resize.input[0]]
        if predictor.op_type != "Conv" or predictor.input[1] not in dims:
            continue
        constant = makers[resize.input[2]]
        scales = onnx.numpy_helper.to_array(constant.attribute[0].t)
        channels = dims[predictor.input[1]][0]
        nodes = _resize_channels_last(resize, scales, channels, graph.initializer)
        argmax.input[0] = nodes[-1].output[0]
        next(a for a in argmax.attribute if a.name == "axis").i = 3
        place = list(graph.node).index(resize)
        for node in reversed(nodes):
            graph.node.insert(place, node)
        graph.node.remove(resize)
        graph.node.remove(constant)
    onnx.save(model, path)


def _resize_channels_last(resize, scales: np.ndarray, channels: int, initializer) -> list:
    """Return nodes that resize (1, C, h, w) to (1, H, W, C); their constants are appended.

    One axis is enlarged after the other, each time with all that lies behind it as channels: this
    saves most of the time that onnxruntime spends on each pixel.
    """
    from onnx import helper, numpy_helper

    options = {a.name: helper.get_attribute_value(a) for a in resize.attribute}
    steps: list[tuple[str, np.ndarray | None, dict]] = []
    # to (1, w, C, h) and (1, W, C, h), then to (1, h, W, C) and (1, H, W, C)
    for scale, shape in ((scales[3], [0, 0, channels, -1]), (scales[2], [0, 0, -1, channels])):
        steps += [
            ("Transpose", None, {"perm": [0, 3, 1, 2]}),
            ("Reshape", np.array([0, 0, 1, -1]), {}),
            ("Resize", np.array([1, scale, 1, 1], np.float32), options),
            ("Reshape", np.array(shape), {}),
        ]
    nodes, last = [], resize.input[0]
    for i, (kind, constant, attributes) in enumerate(steps):
        name = f"{resize.name}/{kind}_{i}"
        inputs = [last]
        if constant is not None:
            initializer.append(numpy_helper.from_array(constant, f"{name}/constant"))
            inputs += ["", f"{name}/constant"] if kind == "Resize" else [f"{name}/constant"]
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        last = name
    return nodes


def onnx_session(module: nn.Module, example: torch.Tensor):
    """Return an onnxruntime session of a module with one input, "image", and one output.

    It runs on the CPU with as many threads as PyTorch.

    Args:
        module: module in evaluation mode, on the CPU.
        example: input of the shape that the session is for.

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
    options.log_severity_level = 3  # no warnings of constants that its own optimiser leaves behind
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_onnx(model: str | bytes) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Do the same as :func:`load_exported` for the path or the content of an ONNX file."""
    session = _open_session(model)
    return lambda image: session.run(None, {"image": image})


def load_exported(path: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return a function that runs a model file on the CPU.

    It maps an image, (1, 3, H, W) float32, to the list of the model's outputs.

    Args:
        path: file that :func:`export_graph` wrote.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    if path.suffix == ".onnx":
        return load_onnx(str(path))
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
