"""Which data sets are checked, and where their files are."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic_format import check_own, image_path, is_panoptic
from eseg_d2.structures.label_space import LabelSpace

__all__ = ["Source", "source_of", "sources_from_config", "sources_from_names"]


@dataclass(frozen=True)
class Source:
    """One data set to check.

    Attributes:
        role: ``"train"``, ``"val"`` or ``""``.
        group: data sets of one group are used together for training and evaluation.
        panoptic_root, image_root: folders of the panoptic pngs and of the images.
        image_path: maps an image's and an annotation's entry in the json to the image's path.
        label_space: the registered one; None if the json itself defines the classes.
    """

    name: str
    role: str
    group: str
    panoptic_json: str
    panoptic_root: str
    image_root: str
    image_path: Callable[[dict, dict], str]
    label_space: LabelSpace | None

    def finding(self, code: str, id_: int | str | None, message: str) -> Finding:
        """Return a finding about the json, whose path the message then begins with."""
        path = self.panoptic_json
        return Finding(code, self.name, path, id_, f"{path}: {message}")


def source_of(name: str, role: str, group: str) -> Source:
    """Return the source of a registered data set.

    Raises:
        ValueError: it is not registered, or is not panoptic.
    """
    _require_registered(name)
    if not is_panoptic(name):
        raise ValueError(
            f"data set {name!r} is not in the COCO panoptic format, the only one that is checked"
        )
    metadata = MetadataCatalog.get(name)
    return Source(
        name,
        role,
        group,
        panoptic_json=metadata.panoptic_json,
        panoptic_root=metadata.panoptic_root,
        image_root=metadata.image_root,
        image_path=partial(image_path, metadata),
        label_space=LabelSpace.from_metadata(metadata),
    )


def _require_registered(name: str) -> None:
    with suppress(FileNotFoundError):  # becomes a finding later
        require_datasets([name])


def sources_from_names(names: Iterable[str]) -> list[Source]:
    """Return the sources of registered data sets, with roles and groups taken from their names.

    Raises:
        ValueError: see :func:`source_of`.
    """
    sources = []
    for name in dict.fromkeys(names):
        split = re.search("train|val|test", name)
        role = {"train": "train", None: ""}.get(split and split[0], "val")
        sources.append(source_of(name, role, group=re.sub("train|val|test", "*", name)))
    return sources


def sources_from_config(cfg: CfgNode, *, eval_only: bool = False) -> list[Source]:
    """Return the sources of the panoptic data sets of DATASETS.TRAIN and DATASETS.TEST.

    Those of DATASETS.PANOPTIC need not be registered, which a broken json would prevent.
    With ``eval_only``, DATASETS.TRAIN is left out.

    Raises:
        ValueError: see :func:`source_of`; or an entry of DATASETS.PANOPTIC is wrong.
    """
    check_own(cfg.DATASETS.PANOPTIC)
    own = {entry["name"]: _own(entry) for entry in cfg.DATASETS.PANOPTIC}
    roles = dict.fromkeys(() if eval_only else cfg.DATASETS.TRAIN, "train")
    roles |= {name: "val" for name in cfg.DATASETS.TEST if name not in roles}
    sources = []
    for name, role in roles.items():
        if name in own:
            sources.append(replace(own[name], role=role))
            continue
        _require_registered(name)
        if is_panoptic(name):
            sources.append(source_of(name, role, group=""))
    return sources


def _own(entry: dict) -> Source:
    return Source(
        entry["name"],
        role="",
        group="",
        panoptic_json=entry["panoptic_json"],
        panoptic_root=entry["panoptic_png"],
        image_root=entry["images"],
        image_path=partial(image_path, Metadata(image_root=entry["images"])),
        label_space=None,
    )
