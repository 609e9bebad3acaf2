"""Load and register data sets in the COCO panoptic format."""

from collections.abc import Callable
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2.data.datasets.json_entries import (
    ANNOTATION_KEYS,
    IMAGE_KEYS,
    SEGMENT_KEYS,
    join_inside,
    wrong_in,
)
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.files import read_json

__all__ = [
    "image_path_of",
    "load_panoptic",
    "metadata_from_categories",
    "path_in",
    "register_panoptic",
]

ImagePath = Callable[[dict, dict], str]
# The image_path of a data set knows whether it needs a file_name.
_IMAGE_KEYS = {key: IMAGE_KEYS[key] for key in ("id", "width", "height")}
_FILE_NAME = {"file_name": IMAGE_KEYS["file_name"]}
_IMAGE_PATHS: dict[str, ImagePath] = {}  # by name of the data set


def load_panoptic(
    panoptic_json: str,
    panoptic_root: str,
    image_path: ImagePath,
    label_space: LabelSpace,
) -> list[dict]:
    """Read a panoptic json into Detectron2's standard panoptic dictionaries.

    Args:
        panoptic_json: path of the json (``images``, ``annotations`` with ``segments_info``).
        panoptic_root: folder of the panoptic pngs (segment id = R + 256 G + 65536 B; 0 is void).
        image_path: from the image's record and the annotation to the path of the image.
        label_space: of the data set; its dataset ids are the json's ``category_id``.

    Returns:
        One dict an image: ``file_name``, ``image_id``, ``height``, ``width`` (pixels),
        ``pan_seg_file_name`` and ``segments_info``, whose ``category_id`` are contiguous ids and
        which also tell ``isthing`` and ``iscrowd``.

    Raises:
        FileNotFoundError: the json is not there.
        ValueError: it is no panoptic json, holds no image, has unknown ids, or paths that lead
            out of the folders.
    """
    images, annotations = _read(panoptic_json)
    records = []
    for annotation in annotations:
        image, name = images.get(annotation["image_id"]), annotation["file_name"]
        if image is None:
            raise ValueError(
                f"{panoptic_json}: annotation {name} is of image {annotation['image_id']!r}, "
                "which is not among its images"
            )
        try:
            records.append(_record(image, annotation, panoptic_root, image_path, label_space))
        except ValueError as e:
            raise ValueError(f"{panoptic_json}, {e}") from e
    return records


def _read(panoptic_json: str) -> tuple[dict, list]:
    """Return images by id, and annotations; their keys are there and of the right kind."""
    content = read_json(panoptic_json)
    for name, keys in ("images", _IMAGE_KEYS), ("annotations", ANNOTATION_KEYS):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(
                f"{panoptic_json} is not in the COCO panoptic format: it lacks {name!r}, a list"
            )
        for index, entry in enumerate(content[name]):
            wrong = wrong_in(entry, keys)
            if wrong:
                raise ValueError(f"{panoptic_json}: {name}[{index}] {wrong}")
    if not content["annotations"]:
        raise ValueError(f"{panoptic_json} annotates no image at all")
    return {image["id"]: image for image in content["images"]}, content["annotations"]


def _record(
    image: dict,
    annotation: dict,
    panoptic_root: str,
    image_path: ImagePath,
    label_space: LabelSpace,
) -> dict:
    name = annotation["file_name"]
    try:
        file_name = image_path(image, annotation)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        which = image.get("file_name") or image["id"]
        raise ValueError(f"image {which!r}: its path cannot be told: {e}") from e
    try:
        png = join_inside(panoptic_root, name)
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
    """Detectron2's panoptic metadata for COCO panoptic categories.

    Args:
        categories: dicts with ``id`` (dataset id), ``name``, ``isthing`` and optionally
            ``color`` (RGB, 0..255), in the order that the contiguous ids shall have.
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
    image_path: ImagePath | None = None,
    **extra,
) -> None:
    """Register a panoptic data set, in the place of one of the same name if there is one.

    Args:
        name: in Detectron2's catalogs.
        image_root, panoptic_root: folders of the images and of the panoptic pngs.
        panoptic_json: path of the json; read when the data set is used, not now.
        metadata: as of :func:`metadata_from_categories`.
        image_path: see :func:`load_panoptic`; default: ``image_root`` and the image's
            ``file_name``.
        **extra: more metadata, such as ``evaluator_type``.
    """

    _IMAGE_PATHS[name] = image_path or partial(path_in, image_root)

    def load():
        label_space = LabelSpace.from_metadata(MetadataCatalog.get(name))
        return load_panoptic(panoptic_json, panoptic_root, _IMAGE_PATHS[name], label_space)

    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog:  # its entries cannot be changed
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        image_root=image_root,
        panoptic_root=panoptic_root,
        panoptic_json=panoptic_json,
        **metadata,
        **extra,
    )


def path_in(image_root: str, image: dict, annotation: dict) -> str:
    """Return the path of an image whose ``file_name`` is one in the folder of the images.

    Raises:
        ValueError: it has none, or one that is absolute or leads out of the folder.
    """
    wrong = wrong_in(image, _FILE_NAME)
    if wrong:
        raise ValueError(f"the image {wrong}")
    return join_inside(image_root, image["file_name"])


def image_path_of(name: str) -> ImagePath:
    """Where a registered data set has its images: see ``image_path`` of :func:`load_panoptic`.

    Raises:
        ValueError: :func:`register_panoptic` did not register it.
    """
    if name not in _IMAGE_PATHS:
        raise ValueError(
            f"data set {name!r} is no panoptic one of this project; "
            f"there are {', '.join(sorted(_IMAGE_PATHS))}, and your own in DATASETS.PANOPTIC"
        )
    return _IMAGE_PATHS[name]
