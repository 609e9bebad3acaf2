"""Things that can take the place of a regular file, and what can become of its content."""

import os
import socket
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def make(kind, path):
    """Replace a file by a pipe, link to a device, folder, socket or huge file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with open(path, "wb") as file:
            file.truncate(2**41)  # a sparse file
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))


KINDS = ("pipe", "zero", "folder", "socket", "large")
REFUSED = "(is a (device or pipe|folder)|has .* bytes)"


def _huge(_) -> bytes:
    """Return a small png whose header claims 60,000 x 60,000 pixels."""
    data = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + struct.pack(">II", 60000, 60000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


# What becomes of the content of an image's file
BREAKS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "no image": lambda data: b"<html>404</html>",
    "zeros": lambda data: bytes(len(data)),
    "damaged": lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
    "huge": _huge,
}


def break_file(path, fault):
    """Change a file as ``BREAKS`` says, or remove it if the fault is "missing"."""
    path = Path(path)
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(BREAKS[fault](path.read_bytes()))
