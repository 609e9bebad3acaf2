"""Load and register data sets in the COCO panoptic format, including those of the user."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from eseg_d2.data.datasets.json_entries import (
    ANNOTATION_KEYS,
    CATEGORY_KEYS,
    IMAGE_KEYS,
    SEGMENT_KEYS,
    check_entries,
    join_inside,
    wrong_in,
)
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.json_yaml import read_json

__all__ = [
    "check_own",
    "dataset_dicts",
    "image_path",
    "is_panoptic",
    "metadata_from_categories",
    "register_own",
    "register_panoptic",
]

# Cityscapes names images by their ids, so a missing file_name is not always an error
_IMAGE_KEYS = {key: IMAGE_KEYS[key] for key in ("id", "width", "height")}
_FILE_NAME = {"file_name": IMAGE_KEYS["file_name"]}
_OWN_KEYS = ("name", "images", "panoptic_png", "panoptic_json")


def is_panoptic(name: str) -> bool:
    """Return whether a data set is in the COCO panoptic format, whoever registered it.

    An unknown name is not panoptic.
    """
    return name in MetadataCatalog and bool(MetadataCatalog[name].get("panoptic_json"))


def dataset_dicts(name: str) -> list[dict]:
    """Return the dicts of a data set in Detectron2's standard format.

    Detectron2's own panoptic entries (COCO, Cityscapes) stay unchanged in its catalogs, but our
    loader reads their files: it needs only the published panoptic files, adds the images' sizes,
    names file and id in its errors, and allows dots in paths. Everything else is loaded by the
    function that it was registered with.

    Args:
        name: name in Detectron2's catalogs.

    Returns:
        One dict for each image. Those of a panoptic data set have ``file_name``, ``image_id``,
        ``pan_seg_file_name`` and ``segments_info``, whose entries have a contiguous id as
        ``category_id``, and also ``isthing`` and ``iscrowd``. Our loader adds ``height`` and
        ``width``.

    Raises:
        FileNotFoundError: the json does not exist.
        ValueError: it is not a panoptic json, lists no images, or has unknown ids or paths that
            lead out of the folders.
    """
    if not is_panoptic(name):
        return DatasetCatalog.get(name)
    load = DatasetCatalog[name]
    if _is_ours(load) or load.__module__.startswith("detectron2."):
        return _load(name)
    is_thing = LabelSpace.from_metadata(MetadataCatalog.get(name)).is_thing.tolist()
    return [
        {
            **record,
            "segments_info": [
                {"isthing": is_thing[s["category_id"]], "iscrowd": 0, **s}
                for s in record["segments_info"]
            ],
        }
        for record in load()
    ]


def _is_ours(load: Callable[[], list[dict]]) -> bool:
    return getattr(load, "func", None) is _load


def _load(name: str) -> list[dict]:
    """Return the dicts of :func:`dataset_dicts`, read from the files named in the metadata."""
    metadata = MetadataCatalog.get(name)
    label_space = LabelSpace.from_metadata(metadata)
    images, annotations = _read(metadata.panoptic_json)
    records = []
    for annotation in annotations:
        image = images.get(annotation["image_id"])
        if image is None:
            raise ValueError(
                f"{metadata.panoptic_json}: annotation {annotation['file_name']} belongs to image "
                f"{annotation['image_id']!r}, which is not among its images"
            )
        try:
            records.append(_record(image, annotation, metadata, label_space))
        except ValueError as e:
            raise ValueError(f"{metadata.panoptic_json}, {e}") from e
    return records


def _read(panoptic_json: str) -> tuple[dict, list]:
    """Return images by id, and annotations, after checking their keys and types."""
    content = read_json(panoptic_json)
    for name, keys in ("images", _IMAGE_KEYS), ("annotations", ANNOTATION_KEYS):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f"{panoptic_json} is not in the COCO panoptic format: it lacks {name!r}, a list"
            )
        check_entries(content, name, keys, panoptic_json)
    if not content["annotations"]:
        raise ValueError(f"{panoptic_json} annotates no images")
    return {image["id"]: image for image in content["images"]}, content["annotations"]


def _record(image: dict, annotation: dict, metadata: Metadata, label_space: LabelSpace) -> dict:
    name = annotation["file_name"]
    try:
        file_name = image_path(metadata, image, annotation)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        which = image.get("file_name") or image["id"]
        raise ValueError(f"image {which!r}: its path is unknown: {e}") from e
    try:
        png = join_inside(metadata.panoptic_root, name)
        segments = _to_contiguous(annotation["segments_info"], label_space)
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    return {
        "file_name": file_name,
        "image_id": annotation["image_id"],
        "height": image["height"],
        "width": image["width"],
        "pan_seg_file_name": png,
        "segments_info": segments,
    }


def image_path(metadata: Metadata, image: dict, annotation: dict) -> str:
    """Return the path of an image by the naming rules of its data set.

    Args:
        metadata: metadata of the data set; ``evaluator_type`` distinguishes Cityscapes, whose
            images are named after the annotation's ``image_id``, from all others, where
            ``file_name`` counts.
        image, annotation: entries of the json, which may be broken.

    Raises:
        ValueError: the name is missing, absolute, or leads out of the folder of the images.
        KeyError, TypeError, AttributeError: an entry of Cityscapes is broken.
    """
    if metadata.get("evaluator_type") == "cityscapes_panoptic_seg":
        image_id = annotation["image_id"]
        name = os.path.join(image_id.split("_")[0], f"{image_id}_leftImg8bit.png")
        return join_inside(metadata.image_root, name)
    wrong = wrong_in(image, _FILE_NAME)
    if wrong:
        raise ValueError(f"the image {wrong}")
    return join_inside(metadata.image_root, image["file_name"])


def _to_contiguous(segments_info: list[dict], label_space: LabelSpace) -> list[dict]:
    for index, segment in enumerate(segments_info):
        wrong = wrong_in(segment, SEGMENT_KEYS)
        if wrong:
            raise ValueError(f"segments_info[{index}] {wrong}")
    ids = label_space.to_contiguous([s["category_id"] for s in segments_info]).tolist()
    return [
        {
            **segment,
            "category_id": contiguous,
            "isthing": bool(label_space.is_thing[contiguous]),
            "iscrowd": int(segment.get("iscrowd", 0)),
        }
        for segment, contiguous in zip(segments_info, ids, strict=True)
    ]


def metadata_from_categories(categories: list[dict]) -> dict:
    """Return Detectron2's panoptic metadata for COCO panoptic categories.

    Args:
        categories: dicts with ``id`` (dataset id), ``name``, ``isthing`` and optionally
            ``color`` (RGB, 0..255), in the order of the contiguous ids.

    Raises:
        ValueError: two categories share an id.
    """
    names = [c["name"] for c in categories]
    contiguous = {c["id"]: i for i, c in enumerate(categories)}
    if len(contiguous) != len(categories):
        raise ValueError(f"categories share an id: {sorted(c['id'] for c in categories)}")
    things = {c["id"] for c in categories if c["isthing"]}
    metadata = {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_dataset_id_to_contiguous_id": {d: i for d, i in contiguous.items() if d in things},
        "stuff_dataset_id_to_contiguous_id": {
            d: i for d, i in contiguous.items() if d not in things
        },
        "ignore_label": 255 if len(categories) <= 255 else 65535,
        "label_divisor": 1000,
    }
    if all("color" in c for c in categories):
        colors = [tuple(c["color"]) for c in categories]
        metadata.update(thing_colors=colors, stuff_colors=colors)
    return metadata


def register_panoptic(
    name: str,
    *,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    metadata: dict,
    evaluator_type: str = "coco_panoptic_seg",
    **extra: object,
) -> None:
    """Register a panoptic data set; it replaces one that this function registered earlier.

    Args:
        name: name in Detectron2's catalogs.
        image_root, panoptic_root: folders of the images and of the panoptic pngs.
        panoptic_json: path of the json, which is not read until the data set is used.
        metadata: metadata from :func:`metadata_from_categories`.
        evaluator_type: ``"coco_panoptic_seg"`` or ``"cityscapes_panoptic_seg"``; see
            :func:`image_path`.
        **extra: more metadata, such as ``gt_dir``.

    Raises:
        ValueError: Detectron2 or another project has registered this name.
    """
    if name in DatasetCatalog:
        if not _is_ours(DatasetCatalog[name]):
            raise ValueError(
                f"data set {name!r} already exists, registered by "
                f"{DatasetCatalog[name].__module__}: choose another name"
            )
        DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)  # the attributes of an entry cannot be changed
    DatasetCatalog.register(name, partial(_load, name))
    MetadataCatalog.get(name).set(
        image_root=image_root,
        panoptic_root=panoptic_root,
        panoptic_json=panoptic_json,
        evaluator_type=evaluator_type,
        **metadata,
        **extra,
    )


def check_own(entries: Sequence[dict]) -> None:
    """Check the entries of DATASETS.PANOPTIC; open no files.

    Args:
        entries: see :func:`register_own`.

    Raises:
        ValueError: an entry lacks a key, or has an unknown one or a value that is not a string; or
            two entries have the same name.
    """
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(_OWN_KEYS):
            raise ValueError(
                f"DATASETS.PANOPTIC has the entry {entry}; expected the keys {', '.join(_OWN_KEYS)}"
            )
        for key, value in entry.items():
            if not isinstance(value, str) or not value:
                raise ValueError(
                    f"DATASETS.PANOPTIC has the entry {entry}; its {key} is {value!r}, "
                    "expected a string"
                )
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"DATASETS.PANOPTIC has several entries with the name {', '.join(twice)}; "
            "give each entry its own"
        )


def register_own(entries: Iterable[dict]) -> None:
    """Register the data sets of DATASETS.PANOPTIC; their categories are read from the jsons.

    Args:
        entries: dicts with ``name``, ``images`` and ``panoptic_png`` (folders) and
            ``panoptic_json`` (a file in the COCO panoptic format).

    Raises:
        ValueError: an entry is wrong (see :func:`check_own`), or its json has no categories.
        FileNotFoundError: its json does not exist.
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
