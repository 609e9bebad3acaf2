"""Find and read configs: a YAML file and overrides, without a look at data sets."""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from eseg_d2.config.defaults import add_eseg_config
from eseg_d2.utils.json_yaml import load_yaml

__all__ = ["all_keys", "find_config", "merge_config", "read_config", "value_of"]

_PACKAGE = Path(__file__).resolve().parent.parent
_MAX_FILES = 50


def find_config(path: str) -> str:
    """Return where a config file lies.

    Args:
        path: path of a YAML file. If there is none and the path begins with ``configs/``, the
            configurations that come with the package are searched, so that
            ``configs/rsp_panoptic_R50.yaml`` works in any folder.

    Raises:
        FileNotFoundError: the file is in neither place.
    """
    if Path(path).is_file():
        return path
    shipped = _PACKAGE / path
    if Path(path).parts[:1] == ("configs",) and shipped.is_file():
        return str(shipped)
    raise FileNotFoundError(
        f"no config file {path!r} in {Path.cwd()}; see configs/ in the checkout, or "
        f"{_PACKAGE / 'configs'}, for those that come with eseg_d2"
    )


def merge_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the config of :func:`read_config`, without the origins of its values."""
    return read_config(config_file, overrides)[0]


def read_config(config_file: str, overrides: Sequence[str] = ()) -> tuple[CfgNode, dict[str, str]]:
    """Merge the defaults, the file (with its ``_BASE_``), and the overrides.

    Args:
        config_file: a YAML file.
        overrides: ``[KEY, VALUE, KEY, VALUE, ...]``.

    Returns:
        The config, and for each key that a file or an override sets, where it is set.

    Raises:
        FileNotFoundError: the file, or one that it is based on, does not exist.
        ValueError: a key is unknown, or a value has the wrong type.
    """
    config_file = find_config(config_file)
    cfg = get_cfg()
    add_eseg_config(cfg)
    defaults = cfg.clone()
    given = _check_files(config_file)
    try:
        # not Detectron2's default, by which a YAML can run code
        cfg.merge_from_file(config_file, allow_unsafe=False)
        _check_values(cfg, defaults)
    except (KeyError, AssertionError, ValueError, yaml.YAMLError) as e:
        raise ValueError(f"{config_file}: {_explain(cfg, e)}") from e
    except (AttributeError, TypeError, RecursionError, MemoryError) as e:
        raise ValueError(
            f"{config_file} is no config: it, or its _BASE_, does not consist of KEY: VALUE lines"
        ) from e
    try:
        cfg.merge_from_list(list(overrides))
        _check_values(cfg, defaults)
    except (KeyError, AssertionError, ValueError, MemoryError) as e:
        raise ValueError(f"KEY VALUE overrides {list(overrides)}: {_explain(cfg, e)}") from e
    return cfg, {**given, **dict.fromkeys(overrides[::2], "the overrides")}


def all_keys(node: dict, prefix: str = "") -> list[str]:
    """Return the names of all keys below a node, such as "MODEL.DEVICE", each after ``prefix``."""
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys += all_keys(value, f"{prefix}{name}.")
    return keys


def value_of(cfg: CfgNode, key: str):
    """Return the value of a key such as "MODEL.DEVICE"."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _check_files(config_file: str) -> dict[str, str]:
    """Check a config file and its bases, before Detectron2 reads and copies them.

    Returns:
        For each key of these files the one that decides its value.
    """
    todo: list[tuple[str, tuple[str, ...]]] = [(config_file, ())]
    count = 0
    given: dict[str, str] = {}
    while todo:
        file, above = todo.pop()
        count += 1
        if file in above or count > _MAX_FILES:
            raise ValueError(f"{file} is its own {BASE_KEY}, or has more than {_MAX_FILES} of them")
        content = load_yaml(PathManager.get_local_path(file))
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError(f"{file} is no config: it does not consist of KEY: VALUE lines")
        for key in all_keys({k: v for k, v in content.items() if k != BASE_KEY}):
            given.setdefault(key, file)
        bases = content.get(BASE_KEY, [])
        bases = bases if isinstance(bases, list) else [bases]
        if not all(isinstance(base, str) for base in bases):
            raise ValueError(f"{file}: {BASE_KEY} is {content[BASE_KEY]!r:.100}; expected a file")
        for base in map(os.path.expanduser, bases):
            is_url = base.startswith(("https://", "http://"))
            path = base if is_url else os.path.join(os.path.dirname(file), base)
            todo.append((path, (*above, file)))
    return given


def _check_values(cfg: CfgNode, defaults: CfgNode) -> None:
    """Check what Detectron2 does not compare when it merges: nulls, and what is within lists."""
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
    """Yield the kinds of the values in a list, however it is nested, or of a single one."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _kinds(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield "number"
    else:
        yield "null" if value is None else type(value).__name__


def _explain(cfg: CfgNode, error: Exception) -> str:
    message = str(error.args[0] if len(error.args) == 1 else error)
    words = [word for word in message.replace("'", " ").split() if "." in word or word.isupper()]
    keys = all_keys(cfg)
    for word in words:
        similar = difflib.get_close_matches(word, keys, n=2, cutoff=0.7)
        if word not in keys and similar:
            return f"{message}. Did you mean {' or '.join(similar)}?"
    return message
