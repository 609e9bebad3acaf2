"""Read json; write images and json so that equal content gives equal bytes."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from eseg_d2.utils.safe_files import read_file

__all__ = ["DuplicateKeyError", "read_json", "whole_number", "write_image", "write_json"]

_OPTIONS = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


class DuplicateKeyError(ValueError):
    """An object of a json has a key twice, and it is not known which value is meant."""


def read_json(path: str | os.PathLike) -> Any:
    """Read a json file in UTF-8, 16 or 32.

    Whole floats such as 1.0, which pandas and MATLAB write for integers, become integers.

    Raises:
        FileNotFoundError, ValueError: see :func:`~eseg_d2.utils.safe_files.require_file`.
        DuplicateKeyError: an object has a key twice.
        ValueError: the file is not valid json, or too deep.
    """
    content = read_file(path)
    try:
        return json.loads(content, parse_float=_parse_float, object_pairs_hook=_object)
    except DuplicateKeyError as e:
        raise DuplicateKeyError(f"{path}: {e}") from e
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not valid json: {e}") from e


def whole_number(value: float) -> float | int:
    """Return an integer for a whole float, and other floats as they are."""
    return int(value) if value.is_integer() else value


def _parse_float(text: str) -> float | int:
    return whole_number(float(text))


def _object(pairs: list[tuple[str, Any]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        where = {k: v for k, v in content.items() if isinstance(v, str | int)}
        raise DuplicateKeyError(f"an object has the key {twice!r} twice: {str(where):.200}")
    return content


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG or JPEG, by the path's suffix.

    Args:
        path: its folder exists.
        pixels: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        OSError: the file cannot be written.
    """
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix, pixels, _OPTIONS[path.suffix])
    assert done, f"OpenCV cannot encode {pixels.dtype} {pixels.shape} as {path.suffix}"
    path.write_bytes(data.tobytes())


def write_json(path: Path, content: Any) -> None:
    """Write json with sorted keys.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(json.dumps(content, sort_keys=True) + "\n")
