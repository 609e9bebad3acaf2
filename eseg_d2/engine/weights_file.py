"""Reading checkpoint and weight files without executing anything that they hold."""

import io
import pickle
import zipfile

import numpy as np
import torch

__all__ = ["UnreadableWeightsError", "read_weights_file"]

_NUMPY_CORE = np.core if np.lib.NumpyVersion(np.__version__) < "2.0.0" else np._core
# What arrays and NumPy's scalars are rebuilt from, by the names that old and new NumPys pickle
_ARRAYS = {
    "_reconstruct": _NUMPY_CORE.multiarray._reconstruct,
    "scalar": _NUMPY_CORE.multiarray.scalar,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_CONTAINERS = {("collections", "OrderedDict"), ("collections", "defaultdict")}
_BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "bytearray", "complex", "int", "float"}
_ENCODE = ("_codecs", "encode")  # how Python 2's protocols write bytes


class UnreadableWeightsError(ValueError):
    """A file of weights that is broken, or holds more than weights. The message names it."""


class _RestrictedUnpickler(pickle.Unpickler):
    """Takes arrays and plain containers only."""

    def find_class(self, module: str, name: str):
        if module in _NUMPY_MODULES and name in _ARRAYS:
            return _ARRAYS[name]
        if module == "numpy.dtypes" and name.endswith("DType"):
            return getattr(np.dtypes, name)
        if (module, name) in _CONTAINERS or (module, name) == _ENCODE:
            return super().find_class(module, name)
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return super().find_class("builtins", name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_weights_file(path: str):
    """The content of a ``.pkl`` file of a model zoo, or of a file by ``torch.save``.

    Args:
        path: an existing local file.

    Returns:
        Plain containers of tensors and arrays.

    Raises:
        UnreadableWeightsError: it is incomplete, or holds anything but arrays, tensors and plain
            containers: code of a stranger is not executed.
    """
    try:
        if path.endswith(".pkl"):
            with open(path, "rb") as f:
                return _RestrictedUnpickler(io.BytesIO(f.read()), encoding="latin1").load()
        allowed = [*_ARRAYS.values(), *_dtype_classes()]
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        if not path.endswith(".pkl") and not zipfile.is_zipfile(path) and _is_cut(path):
            raise UnreadableWeightsError(_incomplete(path, e)) from e
        raise UnreadableWeightsError(
            f"{path} is not read: {_first_lines(e)}.\n  Only tensors, arrays and plain containers "
            "are taken from weight files, since anything else could run code. If you trust it, "
            "write its arrays into a file of their own with torch.save."
        ) from e
    except (EOFError, RuntimeError, OSError, KeyError, ValueError, IndexError) as e:
        raise UnreadableWeightsError(_incomplete(path, e)) from e
    except Exception as e:  # a damaged pickle can fail in any way
        raise UnreadableWeightsError(_incomplete(path, e)) from e


def _dtype_classes() -> list[type]:
    return [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]


def _is_cut(path: str) -> bool:
    """Whether it begins as torch.save's zip files do, without being one."""
    with open(path, "rb") as f:
        start = f.read(4)
    return start in (b"", b"PK\x03\x04", b"\0\0\0\0")


def _incomplete(path: str, error: Exception) -> str:
    return f"{path} cannot be read, it is incomplete or damaged: {_first_lines(error)}"


def _first_lines(error: Exception) -> str:
    """Without PyTorch's page on how to load the file nonetheless."""
    text = str(error).replace("\n", " ")
    for marker in ("Please file an issue", "(1) In PyTorch", "Check the documentation"):
        text = text.split(marker)[0]
    if "Unsupported global" in text:
        text = text[text.index("Unsupported global") :]
    return text.strip(" .\t")[:300]
