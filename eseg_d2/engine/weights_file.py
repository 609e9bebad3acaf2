"""Reading checkpoint and weight files without executing anything that they hold."""

import pickle
import re
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
    "_frombuffer": _NUMPY_CORE.numeric._frombuffer,  # from pickle's protocol 5 on
}
_NUMPY_MODULES = {"numpy"} | {
    f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")
}
_CONTAINERS = {("collections", "OrderedDict"), ("collections", "defaultdict")}
_BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "bytearray", "complex", "int", "float"}
_ENCODE = ("_codecs", "encode")  # how Python 2's protocols write bytes


class UnreadableWeightsError(ValueError):
    """A file of weights that is broken, or holds more than weights. The message names it."""


# The parts of PyTorch's messages that name what a file asks for
_ASKED_FOR = re.compile(r"it asks for (\S+)|unsupported (?:global: )?GLOBAL (\S+)", re.IGNORECASE)


class _RestrictedUnpickler(pickle._Unpickler):
    """Takes arrays and plain containers only.

    Of the unpickler in Python: that in C takes gigabytes for one wrong byte (LONG_BINPUT).
    """

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
        return _read(path)
    except Exception as e:  # a damaged pickle can fail in any way
        asked = _ASKED_FOR.search(str(e)) if isinstance(e, pickle.UnpicklingError) else None
        if asked:
            raise UnreadableWeightsError(
                f"{path} is not read: it asks for {asked[1] or asked[2]}.\n  Only tensors, arrays "
                "and plain containers are taken from weight files, since anything else could run "
                "code. If you trust it, write its arrays into a file of their own with torch.save."
            ) from e
        raise UnreadableWeightsError(
            f"{path} cannot be read, it is incomplete, damaged or no file of weights: {_reason(e)}"
        ) from e


def _read(path: str):
    with open(path, "rb") as f:
        if not f.read(1):
            raise EOFError("it is empty")
        f.seek(0)
        if path.endswith(".pkl"):
            return _RestrictedUnpickler(f, encoding="latin1").load()
    if zipfile.is_zipfile(path):
        _require_checksums(path)
    with torch.serialization.safe_globals([*_ARRAYS.values(), *_dtype_classes()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _require_checksums(path: str) -> None:
    """PyTorch does not compare them, and would take wrong weights."""
    with zipfile.ZipFile(path) as archive:
        has_checksums = any(record.CRC for record in archive.infolist())
        damaged = archive.testzip() if has_checksums else None
    if damaged:
        raise ValueError(f"the checksum of its {damaged} is wrong")


def _dtype_classes() -> list[type]:
    return [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]


def _reason(error: Exception) -> str:
    """Without PyTorch's page on how to load the file nonetheless."""
    text = " ".join(str(error).split())
    for marker in ("In PyTorch 2.6", "This file can still", "Please file", "Check the doc", "(1)"):
        text = text.split(marker)[0]
    return text.strip(" .")[:300] or type(error).__name__
