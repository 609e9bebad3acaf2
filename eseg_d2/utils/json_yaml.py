"""Read json and YAML, whoever wrote it; write json, equal content as equal bytes."""

import json
import os
from typing import Any

import yaml

from eseg_d2.utils.files import read_file, write_atomically

__all__ = [
    "DuplicateKeyError",
    "load_yaml",
    "read_json",
    "read_json_or_none",
    "whole_number",
    "write_json",
    "write_json_atomically",
]

_MAX_YAML_BYTES = 2**20
_MAX_YAML_NODES = 100_000
_MAX_YAML_DEPTH = 50
_MAX_YAML_TEXT = 2048  # that PyYAML and Detectron2 try to read as a number


class DuplicateKeyError(ValueError):
    """An object of a json has a key twice, and it is not known which value is meant."""


def read_json(path: str | os.PathLike) -> Any:
    """Read a json file in UTF-8, 16 or 32.

    Whole floats such as 1.0, which pandas and MATLAB write for integers, become integers.

    Raises:
        FileNotFoundError, ValueError: see :func:`~eseg_d2.utils.files.require_file`.
        DuplicateKeyError: an object has a key twice.
        ValueError: the file is not valid json, or too deep.
    """
    content = read_file(path)
    try:
        return json.loads(
            content,
            parse_float=lambda text: whole_number(float(text)),
            object_pairs_hook=_object,
        )
    except DuplicateKeyError as e:
        raise DuplicateKeyError(f"{path}: {e}") from e
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is not valid json: {e}") from e


def read_json_or_none(path: str | os.PathLike) -> Any:
    """Return the content of a json of a run, as it was written; None if missing or damaged."""
    try:
        return json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return None


def whole_number(value: float) -> float | int:
    """Return an integer for a whole float, and other floats as they are."""
    return int(value) if value.is_integer() else value


def _object(pairs: list[tuple[str, Any]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        where = {k: v for k, v in content.items() if isinstance(v, str | int)}
        raise DuplicateKeyError(f"an object has the key {twice!r} twice: {str(where):.200}")
    return content


def write_json(
    path: str | os.PathLike, content: Any, *, indent: int | None = None, sort_keys: bool = True
) -> None:
    """Write json, in place of what is there.

    Args:
        path: path of the file.
        content: what is written.
        indent: spaces a level; None for one line.
        sort_keys: so that equal content gives equal bytes; False keeps the order of dicts.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, sort_keys=sort_keys, indent=indent) + "\n")


def write_json_atomically(path: str, content: Any) -> None:
    """Write json by :func:`~eseg_d2.utils.files.write_atomically`, in the order of its dicts."""
    text = json.dumps(content, indent=1)
    write_atomically(path, lambda file: file.write(text.encode()))


def load_yaml(path: str | os.PathLike, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the content of a YAML file of up to 1 MiB, plain values only.

    Raises:
        FileNotFoundError: see :func:`~eseg_d2.utils.files.require_file`.
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
