"""Things that can take the place of a regular file."""

import os
import socket


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
