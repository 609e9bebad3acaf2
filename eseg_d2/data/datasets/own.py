"""A user's own data sets, named in the configuration."""

import os
from collections.abc import Iterable

from eseg_d2.data.datasets.json_entries import wrong_in_category
from eseg_d2.data.datasets.panoptic import metadata_from_categories, register_panoptic
from eseg_d2.data.safe_files import read_json

__all__ = ["register_own"]

_KEYS = ("name", "images", "panoptic_png", "panoptic_json")


def register_own(entries: Iterable[dict]) -> None:
    """Register the data sets of DATASETS.PANOPTIC; their categories are read from the jsons.

    Args:
        entries: dicts with ``name``, ``images`` and ``panoptic_png`` (folders) and
            ``panoptic_json`` (a file in the COCO panoptic format).

    Raises:
        ValueError: an entry lacks a key or has another one, or its json has no categories.
        FileNotFoundError: its json is not there.
    """
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(_KEYS):
            raise ValueError(
                f"DATASETS.PANOPTIC has the entry {entry}; expected the keys {', '.join(_KEYS)}"
            )
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
        categories = read_json(path)["categories"]
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{where}: there is no file {os.path.abspath(path)}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{where}: {path} is no json with categories ({e!r})") from e
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{where}: {path} has no category, expected a list of them")
    for index, category in enumerate(categories):
        wrong = wrong_in_category(category)
        if wrong:
            raise ValueError(f"{where}: category {index} in {path} {wrong}")
    ids = [category["id"] for category in categories]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{where}: categories in {path} share an id: {sorted(ids)}")
    return categories
