"""Writing images and json so that equal content gives equal bytes and a full disk is noticed."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

__all__ = ["write_image", "write_json"]

_OPTIONS = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes a PNG or JPEG, by the path's suffix.

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
    """Writes json with sorted keys.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(json.dumps(content, sort_keys=True) + "\n")
