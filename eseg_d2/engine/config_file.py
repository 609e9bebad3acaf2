"""Look at a config file before it is merged: what it is based on, and values that are not there."""

import os
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from eseg_d2.utils.json_yaml import load_yaml

__all__ = ["check_config_file", "check_values"]

_MAX_FILES = 50


def check_config_file(config_file: str) -> None:
    """Check a config file, and those that it is based on, before Detectron2 reads and copies them.

    Args:
        config_file: a YAML file.

    Raises:
        FileNotFoundError: the file, or one that it is based on, is not there.
        ValueError: one is not valid, holds no mapping, or is based on itself.
    """
    todo, count = [(config_file, ())], 0
    while todo:
        file, above = todo.pop()
        count += 1
        if file in above or count > _MAX_FILES:
            raise ValueError(f"{file} is its own {BASE_KEY}, or has more than {_MAX_FILES} of them")
        content = load_yaml(PathManager.get_local_path(file))
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError(f"{file} is no config: it does not consist of KEY: VALUE lines")
        bases = content.get(BASE_KEY, [])
        bases = bases if isinstance(bases, list) else [bases]
        if not all(isinstance(base, str) for base in bases):
            raise ValueError(f"{file}: {BASE_KEY} is {content[BASE_KEY]!r:.100}; expected a file")
        todo += [(_path_of(base, file), (*above, file)) for base in bases]


def _path_of(base: str, file: str) -> str:
    base = os.path.expanduser(base)
    if base.startswith(("https://", "http://")):
        return base
    return os.path.join(os.path.dirname(file), base)


def check_values(cfg: CfgNode, defaults: CfgNode) -> None:
    """Check what Detectron2 does not compare when it merges: nulls, and what is within lists.

    Args:
        cfg: after merging.
        defaults: with the same keys.

    Raises:
        ValueError: the message names the key.
    """
    _compare(cfg, defaults, "")
    for key in "TRAIN", "TEST":
        if not all(isinstance(name, str) for name in cfg.DATASETS[key]):
            raise ValueError(f"DATASETS.{key} is {cfg.DATASETS[key]}; expected names of data sets")
    for entry in cfg.DATASETS.PANOPTIC:
        if not (isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values())):
            raise ValueError(
                f"DATASETS.PANOPTIC has the entry {entry}; expected names and paths by key"
            )


def _compare(cfg: CfgNode, defaults: CfgNode, prefix: str) -> None:
    for key, value in cfg.items():
        default = defaults.get(key)
        if isinstance(value, CfgNode) and isinstance(default, CfgNode):
            _compare(value, default, f"{prefix}{key}.")
            continue
        kinds, expected = set(_kinds(value)), set(_kinds(default))
        mixed = isinstance(value, list | tuple) and len(expected) == 1 and kinds - expected
        if default is not None and ("null" in kinds or mixed):
            raise ValueError(
                f"{prefix}{key} is {value!r:.100}; expected a value of the kind of its default, "
                f"{default!r:.100}"
            )


def _kinds(value) -> Iterator[str]:
    """The kinds of the values in a list, however it is nested, or of a single one."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _kinds(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield "number"
    else:
        yield "null" if value is None else type(value).__name__
