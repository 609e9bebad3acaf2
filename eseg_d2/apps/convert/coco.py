"""Convert a COCO instance json, with stuff in pngs or in a json, to the COCO panoptic format."""

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from pycocotools import mask as coco_mask

from eseg_d2.data.datasets.json_entries import (
    ANNOTATION_KEYS,
    IMAGE_KEYS,
    SEGMENT_KEYS,
    Rule,
    check_entries,
)
from eseg_d2.utils.errors import listing
from eseg_d2.utils.json_yaml import read_json

from .categories import (
    category_index,
    check_categories,
    check_ignored,
    read_categories,
    require_unique_categories,
)
from .dataset import Conversion, Item, Segments, check_output, write_dataset
from .input_files import find_files, read_label_png, repeated

__all__ = ["convert_coco"]

_ANNOTATION_KEYS = {
    "image_id": ANNOTATION_KEYS["image_id"],
    "category_id": SEGMENT_KEYS["category_id"],
    "iscrowd": SEGMENT_KEYS["iscrowd"],
    "segmentation": Rule(lambda value: isinstance(value, list | dict), "polygons or an RLE"),
}


def convert_coco(
    *,
    images: Path,
    instances: Path,
    output: Path,
    stuff: Path | None = None,
    stuff_categories: Path | None = None,
    ignore: tuple[int, ...] | None = None,
    workers: int | None = None,
) -> Conversion:
    """Make ``panoptic/*.png`` and ``panoptic.json`` from COCO instances and stuff.

    The images are those that ``instances`` lists. The stuff png of ``city/a.jpg`` is
    ``city/a.png``. Stuff of other images is ignored.

    Segments are painted in this order, later ones over earlier ones:

    - stuff, one segment for each class; in a json, smaller annotations over larger ones;
    - crowds, in each image one segment with ``iscrowd`` 1 for each class;
    - objects, smaller ones over larger ones, so that small ones do not disappear.

    Objects without a visible pixel are left out and counted. Pixels that nothing covers are void.

    Args:
        images: folder; an image's ``file_name`` is a path in it.
        instances: COCO json: ``images``, ``annotations`` with ``segmentation`` (polygons, or RLE,
            compressed or not) and ``categories``. These are things, except those with ``isthing``
            0, which are allowed only without ``stuff``.
        output: folder for the results.
        stuff: folder of pngs whose pixels are dataset ids of stuff categories, read by
            :func:`~eseg_d2.apps.convert.input_files.read_label_png`; or a COCO json whose
            categories are all stuff, with the image ids of ``instances``; None if ``instances``
            holds the stuff.
        stuff_categories: file of the categories of stuff pngs; see
            :func:`~eseg_d2.apps.convert.categories.read_categories`.
        ignore: values of pixels without stuff in stuff pngs (by default 255), or ids of stuff
            categories in a json to leave out (by default none).
        workers: number of processes; by default one for each CPU.

    Raises:
        ValueError, FileNotFoundError: the inputs are not as described; the message names the file
            and the fix.
        FileExistsError: ``output`` holds something else.
    """
    records, annotations, categories = _read_coco(instances, default_isthing=1)
    has_pngs = stuff is not None and stuff.suffix != ".json"
    if has_pngs != (stuff_categories is not None):
        raise ValueError(
            f"got {stuff_categories or 'no file'} for the categories of stuff; a file is required "
            "with a folder of stuff pngs (--stuff), and not used with a json"
        )
    if stuff is None:
        others = []
    elif has_pngs:
        ignore = (255,) if ignore is None else ignore
        others = read_categories(stuff_categories, default_isthing=0)
        check_ignored(ignore, others, stuff_categories)
    else:
        others, more = _read_stuff(records, stuff, ignore or ())
        annotations = annotations + more
    _check_kinds(categories, others, instances, stuff_categories or stuff)
    classes = categories + others
    require_unique_categories(classes, f"{instances} and {stuff_categories or stuff} together")
    check_output(output, [images, stuff] if has_pngs else [images])
    stuff_ids = [c["id"] for c in classes if not c["isthing"]]
    return write_dataset(
        _items(records, annotations, instances, images, stuff if has_pngs else None),
        partial(_segments, stuff_ids=stuff_ids, ignore=ignore, json_path=instances),
        output=output,
        categories=classes,
        settings=["coco", ignore],
        workers=workers,
    )


def _check_kinds(
    categories: list[dict], others: list[dict], instances: Path, stuff: Path | None
) -> None:
    own = [c["name"] for c in categories if not c["isthing"]]
    if stuff is None and not own:
        raise ValueError(
            f"there is no stuff: no category of {instances} has isthing 0. Give pngs or a json of "
            "stuff (--stuff), or set isthing in the categories."
        )
    if stuff is not None and own:
        raise ValueError(
            f"{instances} has stuff of its own ({listing(own)} with isthing 0): make these things, "
            f"or leave out {stuff}"
        )
    things = [c["name"] for c in others if c["isthing"]]
    if things:
        raise ValueError(
            f"{stuff} has things ({listing(things)} with isthing 1); expected only stuff. Things "
            f"come from {instances}."
        )


def _read_stuff(
    records: list[dict], path: Path, ignore: tuple[int, ...]
) -> tuple[list[dict], list[dict]]:
    """Return the categories and annotations of a json of stuff, for the images ``records``."""
    images, annotations, categories = _read_coco(path, default_isthing=0)
    known = {image["id"] for image in images}
    wanted = {image["id"]: image["file_name"] for image in records}
    alone = [name for id_, name in wanted.items() if id_ not in known]
    if alone:
        raise ValueError(f"{path} does not list the ids of the images {listing(alone)}")
    annotations = [
        annotation
        for annotation in annotations
        if annotation["image_id"] in wanted and annotation["category_id"] not in ignore
    ]
    return [category for category in categories if category["id"] not in ignore], annotations


def _read_coco(path: Path, default_isthing: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Return the images, annotations and categories of a COCO json."""
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in keys):
        raise ValueError(f"{path} is not a COCO json: it needs the lists {', '.join(keys)}")
    for key, rules in ("images", IMAGE_KEYS), ("annotations", _ANNOTATION_KEYS):
        check_entries(content, key, rules, path)
    if not content["images"]:
        raise ValueError(f"{path} lists no images")
    categories = check_categories(content["categories"], path, default_isthing)
    known = {category["id"] for category in categories}
    for annotation in content["annotations"]:
        if annotation["category_id"] not in known:
            raise ValueError(
                f"{path}: annotation {annotation.get('id')} has the category id "
                f"{annotation['category_id']}, which its categories do not list"
            )
    return content["images"], content["annotations"], categories


def _items(
    records: list[dict], annotations: list[dict], path: Path, images: Path, stuff: Path | None
) -> list[Item]:
    by_image = defaultdict(list)
    for annotation in annotations:
        by_image[annotation["image_id"]].append(annotation)
    names = [PurePosixPath(image["file_name"]) for image in records]
    outside = [name for name in names if name.is_absolute() or ".." in name.parts]
    if outside:
        raise ValueError(f"{path}: expected paths below {images}, got {listing(outside)}")
    keys = [name.with_suffix("").as_posix() for name in names]
    ids = [image["id"] for image in records]
    for key, values in (("id", ids), ("file_name (but for the suffix)", keys)):
        shared = repeated(values)
        if shared:
            raise ValueError(f"{path}: several images have the {key} {listing(shared)}")
    unknown = set(by_image) - set(ids)
    if unknown:
        raise ValueError(f"{path} annotates the images {listing(unknown)}, which it does not list")
    pngs = {}
    if stuff is not None:
        pngs = find_files(stuff, (".png",))
        alone = [name for name, key in zip(names, keys, strict=True) if key not in pngs]
        if alone:
            raise FileNotFoundError(f"{stuff} has no stuff png for {listing(alone)} of {path}")
    absent = [name for name in names if not (images / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{images} lacks {listing(absent)}, which {path} lists")
    return [
        Item(
            image_id=image["id"],
            image=images / image["file_name"],
            file_name=image["file_name"],
            label=pngs.get(key, path),
            sources=(pngs[key],) if pngs else (),
            annotations=tuple(by_image[image["id"]]),
            stated_size=(image["height"], image["width"]),
        )
        for image, key in zip(records, keys, strict=True)
    ]


def _segments(
    item: Item, *, stuff_ids: list[int], ignore: tuple[int, ...], json_path: Path
) -> Segments:
    masks = []
    for annotation in item.annotations:
        where = f"{json_path}: annotation {annotation.get('id')} of {item.file_name}"
        rle = _to_rle(annotation["segmentation"], *item.stated_size, where)
        category = annotation["category_id"]
        iscrowd = int(category not in stuff_ids and annotation.get("iscrowd", 0))
        order = 0 if category in stuff_ids else 2 - iscrowd  # stuff, crowds, objects
        masks.append((order, -int(coco_mask.area(rle)), category, iscrowd, rle))
    if item.sources:
        segment_map = _stuff_of_png(item, stuff_ids, ignore, json_path)
    else:
        segment_map = np.zeros(item.stated_size, np.int64)
    layers = [{"category_id": number, "iscrowd": 0} for number in stuff_ids]
    shared = {(number, 0): n for n, number in enumerate(stuff_ids, start=1)}
    for _, _, category, iscrowd, rle in sorted(masks, key=lambda mask: mask[:2]):
        number = shared.get((category, iscrowd))
        if number is None:
            layers.append({"category_id": category, "iscrowd": iscrowd})
            number = len(layers)
            if iscrowd:
                shared[category, 1] = number
        segment_map[coco_mask.decode(rle) > 0] = number
    visible = np.bincount(segment_map.ravel(), minlength=len(layers) + 1)[1:] > 0
    new_ids = np.append(0, np.where(visible, np.cumsum(visible), 0))
    kept = [layer for layer, seen in zip(layers, visible, strict=True) if seen]
    hidden = int((~visible[len(shared) :]).sum())  # objects are painted last
    return Segments(new_ids[segment_map], kept, hidden)


def _stuff_of_png(
    item: Item, stuff_ids: list[int], ignore: tuple[int, ...], json_path: Path
) -> np.ndarray:
    """Return (H, W) int64: the number of each pixel's stuff class, from 1; 0 for none."""
    (path,) = item.sources
    index = category_index(read_label_png(path), stuff_ids, ignore, path)
    if index.shape != item.stated_size:
        raise ValueError(
            f"{json_path} says that {item.file_name} is {item.stated_size} (height, width), but "
            f"{path} is {index.shape}; they must have the same size"
        )
    return index + 1


def _to_rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Return the compressed RLE of polygons or of an RLE, checked before pycocotools sees it."""
    if not isinstance(segmentation, dict):
        return _polygons(segmentation, height, width, where)
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"{where}: its RLE has the size {size}; expected {[height, width]} (height, width), "
            "the size of the image"
        )
    if isinstance(counts, str):
        counts = _decompress(counts)
    # pycocotools trusts the counts, and leaves pixels beyond them uninitialised
    is_list = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not is_list or sum(counts) != height * width:
        raise ValueError(f"{where}: the counts of its RLE do not add up to {height}x{width} pixels")
    return coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)


def _decompress(text: str) -> list[int]:
    """Return the counts of a compressed RLE: 5 bits a character, differences from the third on."""
    counts, value, shift = [], 0, 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    return counts


def _polygons(polygons: list, height: int, width: int, where: str) -> dict:
    """Return the compressed RLE of the union of polygons; those below three points are ignored."""
    try:
        numbers = [[float(number) for number in polygon] for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"{where}: expected polygons [[x, y, x, y, ...], ...] or an RLE") from e
    if any(len(n) % 2 or not np.isfinite(n).all() for n in numbers):
        raise ValueError(
            f"{where}: a polygon has an odd number of coordinates, or one that is not finite"
        )
    # pycocotools takes four numbers for a box
    shapes = [n for n in numbers if len(n) >= 6]
    if not shapes:
        return coco_mask.encode(np.zeros((height, width), dtype=np.uint8, order="F"))
    return coco_mask.merge(coco_mask.frPyObjects(shapes, height, width))
