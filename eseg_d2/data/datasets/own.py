"""A user's own data sets, named in the configuration."""

import os
from collections.abc import Iterable, Sequence

from eseg_d2.data.datasets.json_entries import CATEGORY_KEYS, wrong_in
from eseg_d2.data.datasets.panoptic import metadata_from_categories, register_panoptic
from eseg_d2.utils.files import read_json

__all__ = ["check_own", "register_own"]

_KEYS = ("name", "images", "panoptic_png", "panoptic_json")


def check_own(entries: Sequence[dict]) -> None:
    """Check the entries of DATASETS.PANOPTIC; opens no file.

    Args:
        entries: as :func:`register_own` takes them.

    Raises:
        ValueError: an entry lacks a key, has another one or a value that is no text, or two have
            the same name.
    """
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(_KEYS):
            raise ValueError(
                f"DATASETS.PANOPTIC has the entry {entry}; expected the keys {', '.join(_KEYS)}"
            )
        for key, value in entry.items():
            if not isinstance(value, str) or not value:
                raise ValueError(
                    f"DATASETS.PANOPTIC has the entry {entry}; its {key} is {value!r}, "
                    "expected a text"
                )
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"DATASETS.PANOPTIC has several entries with the name {', '.join(twice)}; "
            "give each one of its own"
        )


def register_own(entries: Iterable[dict]) -> None:
    """Register the data sets of DATASETS.PANOPTIC; their categories are read from the jsons.

    Args:
        entries: dicts with ``name``, ``images`` and ``panoptic_png`` (folders) and
            ``panoptic_json`` (a file in the COCO panoptic format).

    Raises:
        ValueError: an entry is wrong, see :func:`check_own`, or its json has no categories.
        FileNotFoundError: its json is not there.
    """
    entries = list(entries)
    check_own(entries)
    for entry in entries:
        register_panoptic(
            entry["name"],
            image_root=entry["images"],
            panoptic_root=entry["panoptic_png"],
            panoptic_json=entry["panoptic_json"],
            metadata=metadata_from_categories(_read_categories(entry)),
            evaluator_type="coco_panoptic_seg",
        )


def _read_categories(entry: dict) -> list[dict]:
    path = entry["panoptic_json"]
    where = f"data set {entry['name']!r} of DATASETS.PANOPTIC"
    try:
        content = read_json(path)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{where}: there is no file {os.path.abspath(path)}") from e
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e
    categories = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{where}: {path} has no categories, expected a list of them")
    for index, category in enumerate(categories):
        wrong = wrong_in(category, CATEGORY_KEYS)
        if wrong:
            raise ValueError(f"{where}: category {index} in {path} {wrong}")
    ids = [category["id"] for category in categories]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{where}: categories in {path} share an id: {sorted(ids)}")
    return categories
