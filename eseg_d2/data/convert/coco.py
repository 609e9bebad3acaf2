"""A COCO instance json and stuff pngs to the COCO panoptic format."""

from collections import defaultdict
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from pycocotools import mask as coco_mask

from eseg_d2.data.text import listing

from .categories import (
    category_index,
    check_categories,
    check_ignored,
    read_categories,
    require_unique_categories,
)
from .common import find_files, read_json, read_label_png, repeated
from .dataset import Conversion, Item, check_output, write_dataset
from .segments import Segments

__all__ = ["convert_coco"]


def convert_coco(
    *,
    images: Path,
    instances: Path,
    stuff: Path,
    stuff_categories: Path,
    output: Path,
    ignore: tuple[int, ...] = (255,),
    workers: int | None = None,
) -> Conversion:
    """Make ``panoptic/*.png`` and ``panoptic.json`` of COCO instances and stuff pngs.

    The images are those that the json lists. The stuff png of ``city/a.jpg`` is ``city/a.png``.
    Files of other images are left alone.

    How pixels become segments: stuff first, one segment a class; over it crowds, all of a class in
    one image as one segment with ``iscrowd`` 1; over these the objects, each below every smaller
    one, so that small ones do not disappear. Objects without a visible pixel are left out and
    counted.

    Args:
        images: folder; an image's ``file_name`` is a path in it.
        instances: COCO instance json: ``images``, ``annotations`` with ``segmentation`` (polygons,
            or RLE, compressed or not) and ``categories``, which are the things.
        stuff: folder of pngs; a pixel is the dataset id of a stuff category. Read as
            :func:`~eseg_d2.data.convert.common.read_label_png` does.
        stuff_categories: file; see :func:`~eseg_d2.data.convert.categories.read_categories`.
        output: folder that gets the results.
        ignore: values in the stuff pngs of pixels without stuff.
        workers: number of processes; by default one for each CPU.

    Raises:
        ValueError, FileNotFoundError: the inputs are not like that; file and fix are named.
        FileExistsError: `output` holds something else.
    """
    content = _read_instances(instances)
    things = check_categories(content["categories"], instances, isthing=1)
    classes = things + read_categories(stuff_categories, isthing=0)
    require_unique_categories(classes, f"{instances} and {stuff_categories} together")
    check_ignored(ignore, classes[len(things) :], stuff_categories)
    check_output(output, [images, stuff])
    items = _items(content, instances, images, find_files(stuff, (".png",)), stuff)
    _check_annotations(content, {c["id"] for c in things}, instances)
    return write_dataset(
        items,
        partial(
            _segments,
            stuff_ids=[c["id"] for c in classes[len(things) :]],
            ignore=ignore,
            json_path=instances,
        ),
        output=output,
        categories=classes,
        settings=["coco", ignore],
        workers=workers,
    )


def _read_instances(path: Path) -> dict:
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in keys):
        raise ValueError(f"{path} is no COCO instance json: it needs the lists {', '.join(keys)}")
    for key, wanted in (
        ("images", {"id", "file_name", "height", "width"}),
        ("annotations", {"image_id", "category_id", "segmentation"}),
    ):
        for entry in content[key]:
            if not isinstance(entry, dict) or not wanted <= set(entry):
                number = entry.get("id") if isinstance(entry, dict) else entry
                raise ValueError(
                    f"{path}: each of its {key} needs {', '.join(sorted(wanted))}; "
                    f"{number!r} lacks some"
                )
    if not content["images"]:
        raise ValueError(f"{path} lists no image")
    return content


def _items(
    content: dict, path: Path, images: Path, stuff: dict[str, Path], folder: Path
) -> list[Item]:
    annotations = defaultdict(list)
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    names = [PurePosixPath(image["file_name"]) for image in content["images"]]
    outside = [name for name in names if name.is_absolute() or ".." in name.parts]
    if outside:
        raise ValueError(f"{path}: expected paths below {images}, got {listing(outside)}")
    keys = [name.with_suffix("").as_posix() for name in names]
    ids = [image["id"] for image in content["images"]]
    for key, values in (("id", ids), ("file_name (but for the suffix)", keys)):
        shared = repeated(values)
        if shared:
            raise ValueError(f"{path}: several images have the {key} {listing(shared)}")
    unknown = set(annotations) - set(ids)
    if unknown:
        raise ValueError(f"{path} annotates the images {listing(unknown)}, which it does not list")
    alone = [name for name, key in zip(names, keys, strict=True) if key not in stuff]
    if alone:
        raise FileNotFoundError(f"{folder} has no stuff png for {listing(alone)} of {path}")
    absent = [name for name in names if not (images / name).is_file()]
    if absent:
        raise FileNotFoundError(f"{images} does not hold {listing(absent)} of {path}")
    return [
        Item(
            image_id=image["id"],
            image=images / image["file_name"],
            file_name=image["file_name"],
            sources=(stuff[key],),
            annotations=tuple(annotations[image["id"]]),
            stated_size=(image["height"], image["width"]),
        )
        for image, key in zip(content["images"], keys, strict=True)
    ]


def _check_annotations(content: dict, thing_ids: set[int], path: Path) -> None:
    for annotation in content["annotations"]:
        if annotation["category_id"] not in thing_ids:
            raise ValueError(
                f"{path}: annotation {annotation.get('id')} has the category id "
                f"{annotation['category_id']}, which its categories do not list"
            )


def _segments(
    item: Item, *, stuff_ids: list[int], ignore: tuple[int, ...], json_path: Path
) -> Segments:
    path = item.sources[0]
    index = category_index(read_label_png(path), stuff_ids, ignore, path)
    size = index.shape
    if size != item.stated_size:
        raise ValueError(
            f"{json_path} says that {item.file_name} is {item.stated_size} (height, width), but "
            f"{path} is {size}; they must be of the same size"
        )
    segment_map = index + 1
    layers = [{"category_id": number, "iscrowd": 0} for number in stuff_ids]
    crowds, objects = [], []
    for annotation in item.annotations:
        where = f"{json_path}: annotation {annotation.get('id')} of {item.file_name}"
        rle = _rle(annotation["segmentation"], *size, where)
        group = crowds if annotation.get("iscrowd", 0) else objects
        group.append((annotation["category_id"], rle))
    numbers = {}
    for category, rle in crowds:
        if category not in numbers:
            layers.append({"category_id": category, "iscrowd": 1})
            numbers[category] = len(layers)
        segment_map[coco_mask.decode(rle) > 0] = numbers[category]
    for category, rle in sorted(objects, key=lambda o: coco_mask.area(o[1]), reverse=True):
        layers.append({"category_id": category, "iscrowd": 0})
        segment_map[coco_mask.decode(rle) > 0] = len(layers)
    visible = np.bincount(segment_map.ravel(), minlength=len(layers) + 1)[1:] > 0
    new_ids = np.append(0, np.where(visible, np.cumsum(visible), 0))
    kept = [layer for layer, seen in zip(layers, visible, strict=True) if seen]
    hidden = len(objects) - visible[len(layers) - len(objects) :].sum()
    return Segments(new_ids[segment_map], kept, int(hidden))


def _rle(segmentation: list | dict, height: int, width: int, where: str) -> dict:
    """Compressed RLE of polygons or of an RLE."""
    if not isinstance(segmentation, dict):
        return _polygons(segmentation, height, width, where)
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise ValueError(
            f"{where}: its RLE is of size {size}; expected {[height, width]} (height, width), as "
            "the stuff png"
        )
    if isinstance(counts, str):
        counts = _decompress(counts)
    # pycocotools trusts them, and leaves what they do not reach as the memory was
    is_list = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not is_list or sum(counts) != height * width:
        raise ValueError(f"{where}: the counts of its RLE do not add up to {height}x{width} pixels")
    return coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)


def _decompress(text: str) -> list[int]:
    """Counts of COCO's compressed RLE: 5 bits a character, from the third on differences."""
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
    """Compressed RLE of polygons together; empty if none of them has three points."""
    try:
        numbers = [[float(number) for number in polygon] for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"{where}: expected polygons [[x, y, x, y, ...], ...] or an RLE") from e
    if any(len(n) % 2 or not np.isfinite(n).all() for n in numbers):
        raise ValueError(f"{where}: a polygon has an odd number of coordinates, or one not finite")
    # pycocotools takes four numbers for a box
    shapes = [n for n in numbers if len(n) >= 6]
    if not shapes:
        return coco_mask.encode(np.zeros((height, width), dtype=np.uint8, order="F"))
    return coco_mask.merge(coco_mask.frPyObjects(shapes, height, width))
