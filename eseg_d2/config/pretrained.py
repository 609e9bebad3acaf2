"""The trained models that come with the package, by name: files and cards in ``weights/``."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathHandler, PathManager

from eseg_d2.config.resolve import load_config
from eseg_d2.utils.json_yaml import read_json

__all__ = ["pretrained_card", "pretrained_config", "pretrained_names"]

PACKAGE = Path(__file__).resolve().parent.parent
WEIGHTS = PACKAGE / "weights"  # in the checkout a link to weights/
PREFIX = "eseg_d2://"


def pretrained_names() -> list[str]:
    """Return the names of the models, in alphabetical order."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def pretrained_card(name: str) -> dict:
    """Return the content of ``weights/NAME.json``, which weights/README.md describes.

    Raises:
        ValueError: the name is not one of :func:`pretrained_names`.
    """
    if name not in pretrained_names():
        raise ValueError(f"no pretrained model {name!r}; there are {', '.join(pretrained_names())}")
    return read_json(WEIGHTS / f"{name}.json")


def pretrained_config(name: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Return the config of a model, with MODEL.WEIGHTS "eseg_d2://NAME".

    Args:
        name: one of :func:`pretrained_names`.
        overrides: ``[KEY, VALUE, ...]``.

    Raises:
        ValueError: the name, a key or a value is wrong.
    """
    # The package's own file, not one of that name in the current folder
    config = PACKAGE / pretrained_card(name)["config"]
    return load_config(str(config), ["MODEL.WEIGHTS", f"{PREFIX}{name}", *overrides])


class PretrainedHandler(PathHandler):
    """Finds the file of "eseg_d2://NAME", MODEL.WEIGHTS to start from or to evaluate."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        self._check_kwargs(kwargs)
        name = path.removeprefix(PREFIX)
        card, file = pretrained_card(name), WEIGHTS / f"{name}.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: clone or install eseg_d2 again")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != card["sha256"]:
            raise ValueError(
                f"{file} has the SHA-256 {found}, but {name}.json beside it says "
                f"{card['sha256']}: the file is incomplete or changed; clone or install eseg_d2 "
                "again"
            )
        return str(file)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs):
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


PathManager.register_handler(PretrainedHandler())
