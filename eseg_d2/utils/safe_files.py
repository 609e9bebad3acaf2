"""Files that others made: regular ones only, of a bounded size, and YAML of a bounded content."""

import os
import stat
from typing import Any

import yaml

__all__ = ["load_yaml", "read_file", "require_file"]

_MAX_BYTES = 2**32  # more than any json or image of a data set needs
_MAX_YAML_BYTES = 2**20
_MAX_YAML_NODES = 100_000
_MAX_YAML_DEPTH = 50
_MAX_YAML_TEXT = 2048  # that PyYAML and Detectron2 try to read as a number


def require_file(path: str | os.PathLike, *, max_bytes: int = _MAX_BYTES) -> None:
    """Check that there is a file with content, which may be opened without waiting for a pipe.

    Args:
        path: of the file.
        max_bytes: that it may have.

    Raises:
        FileNotFoundError: nothing there, or a link that leads nowhere.
        ValueError: a folder, a device or pipe, an empty file, one that may not be read, or one
            that is too large.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as e:
        if os.path.islink(name):
            target = os.readlink(name)
            raise FileNotFoundError(f"{name} is a link to {target}, which is not there") from e
        raise FileNotFoundError(f"no such file: {name}") from e
    except (OSError, ValueError) as e:  # a loop of links, a zero byte in the name
        raise ValueError(f"cannot open {name}: {getattr(e, 'strerror', None) or e}") from e
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{name} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is a device or pipe, not a file")
    if status.st_size == 0:
        raise ValueError(f"{name} is empty")
    if status.st_size > max_bytes:
        raise ValueError(f"{name} has {status.st_size} bytes; the limit is {max_bytes}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{name} may not be read: permission denied")


def read_file(path: str | os.PathLike, *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a file. Args and errors are those of :func:`require_file`."""
    require_file(path, max_bytes=max_bytes)
    with open(path, "rb") as file:
        return file.read()


def load_yaml(path: str | os.PathLike, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the content of a YAML file, plain values only.

    Args:
        path: of a file of up to 1 MiB.
        loader: constructs the values.

    Raises:
        FileNotFoundError: see :func:`require_file`.
        ValueError: as there, or it is not valid, has Python's tags, a value of more than 2048
            characters, or aliases that multiply to more than 100,000 values.
    """
    text = read_file(path, max_bytes=_MAX_YAML_BYTES)
    try:
        reader = loader(text)
        root = reader.get_single_node()
        if root is None:
            return None
        _require_few(root)
        return reader.construct_document(root)
    except Exception as e:  # a tag on a value of another kind can fail in any way
        reason = " ".join(str(e).split()) or type(e).__name__
        raise ValueError(f"{os.fspath(path)} is not valid yaml: {reason}") from e


def _require_few(root: yaml.Node) -> None:
    """Bound what the aliases of a document multiply to, which whoever copies it would make."""
    sizes: dict[yaml.Node, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > _MAX_YAML_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_YAML_DEPTH}, or within itself")
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_YAML_TEXT:
            raise ValueError(f"it holds a value of more than {_MAX_YAML_TEXT} characters")
        if node not in sizes:
            parts = node.value if isinstance(node, yaml.CollectionNode) else ()
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            sizes[node] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[node]

    if size(root, 0) > _MAX_YAML_NODES:
        raise ValueError(f"its aliases multiply to more than {_MAX_YAML_NODES} values")
