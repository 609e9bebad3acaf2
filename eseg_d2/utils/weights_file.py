"""Reading checkpoint and weight files without executing anything that they hold."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable

import safetensors
import torch

from eseg_d2.utils.files import require_file
from eseg_d2.utils.plain_pickle import STORAGES, Global, RefusedPickleError, read_pickle

__all__ = ["UnreadableWeightsError", "read_weights_file"]

_MAX_BYTES = 2**40
_MAGIC_OF_OLD_FILES = 0x1950A86A20F9469CFC6C  # of torch.save before PyTorch 1.6


class UnreadableWeightsError(ValueError):
    """A file of weights that is broken, or holds more than weights; the message names it."""


def read_weights_file(path: str):
    """Read a ``.pkl`` of a model zoo, a ``.safetensors``, or a file by ``torch.save``.

    Args:
        path: an existing local file.

    Returns:
        Plain containers of tensors and arrays. Of a ``.safetensors`` ``{"model": tensors by name}``
        and its metadata, texts by name.

    Raises:
        UnreadableWeightsError: it is incomplete, or holds anything but arrays, tensors and plain
            containers: code of a stranger is not executed.
    """
    try:
        return _read(path)
    except RefusedPickleError as e:
        raise UnreadableWeightsError(
            f"{path} is not read: {e}.\n  Only tensors, arrays and plain containers are taken from "
            "weight files, since anything else could run code. If you trust it, write its arrays "
            "into a file of their own with torch.save."
        ) from e
    except Exception as e:  # a damaged file can fail in any way
        reason = " ".join(str(e).split()).replace(f"{path} ", "it ").strip(" .")[:300]
        raise UnreadableWeightsError(
            f"{path} cannot be read, it is incomplete, damaged or no file of weights: "
            f"{reason or type(e).__name__}"
        ) from e


def _read(path: str):
    require_file(path, max_bytes=_MAX_BYTES)
    if path.endswith(".safetensors"):
        with safetensors.safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {**(file.metadata() or {}), "model": weights}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if path.endswith(".pkl"):
            return read_pickle(file, size)
        begin = file.read(4)
        file.seek(0)
        return _read_zip(file, size) if begin == b"PK\x03\x04" else _read_old(file, size)


def _read_zip(file: io.BufferedReader, size: int):
    """Read what ``torch.save`` writes: a pickle, and the values of each storage."""
    with zipfile.ZipFile(file) as archive:
        records = {record.filename: record for record in archive.infolist()}
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records.values())
    if not stored or sum(record.file_size for record in records.values()) > size:
        raise ValueError("it is compressed, or its parts overlap; PyTorch writes neither")
    has_checksums = any(record.CRC for record in records.values())
    folder = next(iter(records)).split("/")[0]

    def content_of(name: str) -> bytearray:
        record = records[f"{folder}/{name}"]
        file.seek(record.header_offset + 26)  # lengths of the name and of what is between
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        content = bytearray(record.file_size)
        if file.readinto(content) < len(content):
            raise EOFError(f"its {name} ends too early")
        if has_checksums and zlib.crc32(content) != record.CRC:
            raise ValueError(f"the checksum of its {name} is wrong")
        return content

    if f"{folder}/byteorder" in records and content_of("byteorder") != b"little":
        raise ValueError("it was written on a machine with another order of bytes")
    instructions = content_of("data.pkl")

    def load(key: str, count: int, dtype: torch.dtype) -> torch.Tensor:
        return _values(content_of(f"data/{key}"), count, dtype)

    return read_pickle(io.BytesIO(instructions), len(instructions), _Storages(load))


def _read_old(file: io.BufferedReader, size: int):
    """Read what ``torch.save`` wrote before PyTorch 1.6: five pickles, then the values."""
    left = size

    def load(_key: str, count: int, dtype: torch.dtype) -> torch.Tensor:
        nonlocal left
        left -= count * dtype.itemsize
        if left < 0:
            raise EOFError("it ends too early")
        return torch.zeros(count, dtype=dtype)

    def read(storages: _Storages | None = None):
        return read_pickle(file, size - file.tell(), storages)

    if read() != _MAGIC_OF_OLD_FILES:
        raise ValueError("it begins as no file of PyTorch does")
    read(), read()  # versions and sizes, which are the same everywhere
    storages = _Storages(load)
    content = read(storages)
    keys = read()
    if sorted(keys) != sorted(storages.loaded):
        raise ValueError("it lacks values")
    for key in keys:
        target = storages.loaded[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != len(target):
            raise ValueError("the number of its values is wrong")
        values = bytearray(count * target.itemsize)
        if file.readinto(values) < len(values):
            raise EOFError("it ends too early")
        target.copy_(_values(values, count, target.dtype))
    return content


class _Storages:
    """Finds the values of a tensor by PyTorch's persistent id."""

    def __init__(self, load: Callable[[str, int, torch.dtype], torch.Tensor]):
        self._load = load
        self.loaded: dict[str, torch.Tensor] = {}

    def __call__(self, persistent_id: tuple) -> torch.Tensor:
        _storage, kind, key, _location, count, *view = persistent_id
        if not isinstance(kind, Global) or kind.name not in STORAGES or any(view):
            raise RefusedPickleError("it asks for something that is no tensor")
        if type(key) is not str or type(count) is not int:
            raise RefusedPickleError("it asks for a tensor without a name or a size")
        if key not in self.loaded:
            self.loaded[key] = self._load(key, count, STORAGES[kind.name])
        return self.loaded[key]


def _values(content: bytearray, count: int, dtype: torch.dtype) -> torch.Tensor:
    if count * dtype.itemsize != len(content):
        raise ValueError(f"{count} values of {dtype} are in {len(content)} bytes")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
