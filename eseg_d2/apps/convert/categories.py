"""Categories of a user's data set, and the category of each pixel."""

from pathlib import Path

import numpy as np
import yaml

from eseg_d2.data.datasets.json_entries import CATEGORY_KEYS, wrong_in
from eseg_d2.utils.errors import listing
from eseg_d2.utils.json_yaml import load_yaml, read_json, whole_number

from .input_files import repeated

__all__ = [
    "category_index",
    "check_categories",
    "check_ignored",
    "read_categories",
    "require_unique_categories",
]

_KEPT = ("id", "name", "isthing", "supercategory", "color")
_VALUES = 1 << 16  # number of values that a pixel can have


class _Loader(yaml.SafeLoader):
    """A loader that turns whole floats into integers, as read_json does."""


_Loader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda loader, node: whole_number(loader.construct_yaml_float(node)),
)


def read_categories(path: Path, default_isthing: int | None = None) -> list[dict]:
    """Read a list of categories, or the ``categories`` of a COCO json.

    Args:
        path: a ``.json``, ``.yaml`` or ``.yml`` file.
        default_isthing: see :func:`check_categories`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no regular file, has another suffix, or holds no valid categories.
    """
    if path.suffix == ".json":
        content = read_json(path)
    elif path.suffix in (".yaml", ".yml"):
        content = load_yaml(path, _Loader)
    else:
        raise ValueError(f"{path}: expected a .json, .yaml or .yml file of categories")
    if isinstance(content, dict):
        content = content.get("categories")
    return check_categories(content, path, default_isthing)


def check_categories(
    categories: list[dict], path: Path, default_isthing: int | None = None
) -> list[dict]:
    """Check categories and return them, reduced to the keys of the panoptic format.

    Args:
        categories: dicts with ``id`` (dataset id, 0 or more), ``name``, ``isthing`` (0 or 1) and
            optionally ``supercategory`` and ``color`` (RGB, 0..255).
        path: their file, for error messages.
        default_isthing: for categories without ``isthing``; None if all must have it.

    Raises:
        ValueError: a category is not as described, or two share an id or a name.
    """
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{path}: expected a list of categories with id, name and isthing")
    checked = []
    for category in categories:
        if isinstance(category, dict) and default_isthing is not None:
            category = {"isthing": default_isthing, **category}
        wrong = wrong_in(category, CATEGORY_KEYS)
        if wrong:
            raise ValueError(f"{path}: the category {category} {wrong}")
        if category["id"] < 0:
            raise ValueError(
                f"{path}: the category {category} has a negative id; expected 0, 1, .."
            )
        kept = {key: category[key] for key in _KEPT if key in category}
        checked.append({**kept, "isthing": int(kept["isthing"])})
    require_unique_categories(checked, str(path))
    return checked


def require_unique_categories(categories: list[dict], where: str) -> None:
    """Raise ValueError, which says ``where``, if two categories share an id or a name."""
    for key in "id", "name":
        shared = repeated(category[key] for category in categories)
        if shared:
            raise ValueError(
                f"{where}: several categories have the {key} {listing(shared)}; "
                "give each category its own"
            )


def check_ignored(ignore: tuple[int, ...], categories: list[dict], path: Path) -> None:
    """Raise ValueError if an ignored value is out of range or the id of a category of ``path``."""
    outside = [value for value in ignore if not 0 <= value < _VALUES]
    if outside:
        raise ValueError(f"cannot ignore {listing(outside)}: pixels are 0 .. {_VALUES - 1}")
    both = sorted({c["id"] for c in categories} & set(ignore))
    if both:
        raise ValueError(
            f"{listing(both)} is ignored and is the id of a category in {path}. Give other ignored "
            "values with --ignore (none if nothing follows it), or remove the category."
        )


def category_index(
    labels: np.ndarray, category_ids: list[int], ignore: tuple[int, ...], path: Path
) -> np.ndarray:
    """Return the category of each pixel.

    Args:
        labels: (H, W) dataset ids, 0 .. 65535, of the file ``path``.
        category_ids, ignore: the known and the ignored dataset ids.

    Returns:
        (H, W) int64: index into ``category_ids``, -1 where ignored.

    Raises:
        ValueError: a label is neither the id of a category nor ignored.
    """
    unknown = -2
    table = np.full(_VALUES, unknown, dtype=np.int64)
    table[list(ignore)] = -1
    for index, number in enumerate(category_ids):
        if number < _VALUES:  # others cannot occur
            table[number] = index
    found = table[labels]
    if found.min(initial=0) == unknown:
        values = np.unique(labels[found == unknown]).tolist()
        raise ValueError(
            f"{path} has pixels with the value {listing(values, limit=10)}, which no category has "
            f"(categories: {listing(sorted(category_ids), limit=20)}; ignored: "
            f"{listing(ignore) or 'none'}). Add it to the categories, or to --ignore."
        )
    return found
