"""What can be in the place of a file and is none."""

import os
import socket


def make(kind, path):
    """Puts something else in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with open(path, "wb") as file:
            file.truncate(2**41)  # of holes
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))


KINDS = ("pipe", "zero", "folder", "socket", "large")
REFUSED = "(is a (device or pipe|folder)|has .* bytes)"
