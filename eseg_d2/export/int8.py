"""Quantise ONNX files to 8-bit integers with onnxruntime's static quantisation."""

import contextlib
import copy
import difflib
import logging
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

__all__ = ["Quantizer"]

_OPERATIONS = ["Conv", "Relu", "Clip", "Sigmoid", "MaxPool", "Add", "Mul", "Resize"]
_RELATION = "/relation/"  # stays in fp32: its border is -inf, and it has no convolutions


class Quantizer:
    """Quantises a model after one calibration, any number of times with other layers in fp32.

    Weights are int8 with a scale for each output channel, activations uint8, in the QDQ format.

    Attributes:
        layers: names of the convolutions, in the order of computation.
    """

    def __init__(self, path: Path, images: Iterable[np.ndarray], count: int):
        """
        Args:
            path: an ONNX file with the input "image".
            images: each (3, H, W) float32, 0 .. 255; the ranges of the activations are taken from
                them.
            count: number of images, for the progress bar.

        Raises:
            ValueError: onnxruntime or onnx is not installed.
        """
        try:
            import onnx
            from onnxruntime import quantization
            from onnxruntime.quantization.shape_inference import quant_pre_process
        except ModuleNotFoundError as e:
            message = "--int8 needs onnxruntime and onnx: pip install onnxruntime onnxscript"
            raise ValueError(message) from e
        with tempfile.TemporaryDirectory() as folder, _quiet():
            prepared = Path(folder) / "prepared.onnx"
            # the shapes are known from the trace, so onnx's own inference suffices
            quant_pre_process(path, prepared, skip_symbolic_shape=True)
            calibrator = quantization.create_calibrator(
                prepared, _OPERATIONS, str(Path(folder) / "augmented.onnx")
            )
            for image in tqdm(images, "calibrating", count, unit="image"):
                inputs = iter([{"image": image[None]}])
                calibrator.collect_data(SimpleNamespace(get_next=partial(next, inputs, None)))
            self._ranges = calibrator.compute_data()
            self._model = onnx.load(prepared)
        nodes = self._model.graph.node
        self.layers = [node.name for node in nodes if node.op_type == "Conv"]
        last_conv = max(i for i, node in enumerate(nodes) if node.op_type == "Conv")
        self._fp32 = [
            *(node.name for node in nodes if _RELATION in node.name),
            # the resize of the logits: small differences decide between classes, and onnxruntime
            # takes longer to resize integers
            *(node.name for node in list(nodes)[last_conv + 1 :] if node.op_type == "Resize"),
        ]

    def quantize(self, keep: Sequence[str] = ()) -> bytes:
        """Return the quantised model as the content of an ONNX file.

        Args:
            keep: convolutions that stay in fp32, each by its name or the beginning of it.

        Raises:
            ValueError: no convolution has such a name.
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        kept = [layer for layer in self.layers if layer.startswith(tuple(keep))]
        for name in keep:
            if not any(layer.startswith(name) for layer in kept):
                similar = difflib.get_close_matches(name, self.layers, n=3, cutoff=0)
                raise ValueError(
                    f"--keep {name}: no convolution of the model has a name that begins with it; "
                    f"similar names are {', '.join(similar)}"
                )
        quantizer = QDQQuantizer(
            copy.deepcopy(self._model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[*kept, *self._fp32],
            op_types_to_quantize=_OPERATIONS,
            extra_options={},
        )
        with _quiet():
            quantizer.quantize_model()
        return quantizer.model.model.SerializeToString()


@contextlib.contextmanager
def _quiet():
    """Silence onnxruntime, which logs advice that is already followed."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
