"""Write a data set in the COCO panoptic format, image by image; a killed run can be resumed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eseg_d2.data.panoptic_png import count_segments, segment_id_to_rgb
from eseg_d2.utils.errors import listing
from eseg_d2.utils.files import replacing, write_image
from eseg_d2.utils.json_yaml import read_json, write_json
from eseg_d2.utils.parallel import map_in_processes, number_of_workers

from .input_files import image_size

__all__ = ["Conversion", "Item", "Segments", "check_output", "require_partners", "write_dataset"]

JSON, PNGS = "panoptic.json", "panoptic"
_UNFINISHED = ".unfinished"
# ids have 24 bits; 0 is void, and some versions of Detectron2 pad with 0xFFFFFF
_MAX_SEGMENTS = (1 << 24) - 2


@dataclass(frozen=True)
class Item:
    """One image to convert.

    Attributes:
        file_name: the image's path in the folder of images; the panoptic png is named after it.
        label: the file that defines the segments, for error messages.
        sources: the files from which the segments are made, besides the annotations.
        annotations: the annotations from which the segments are made.
        stated_size: (height, width) in pixels that the annotations state, if any.
    """

    image_id: int | str
    image: Path
    file_name: str
    label: Path
    sources: tuple[Path, ...] = ()
    annotations: tuple[dict, ...] = ()
    stated_size: tuple[int, int] | None = None

    @property
    def png(self) -> str:
        """Path of the panoptic png in its folder."""
        return PurePosixPath(self.file_name).with_suffix(".png").as_posix()

    def digest(self, settings: Any) -> str:
        """Return a checksum that changes with the files, the annotations and the settings."""
        stats = [os.stat(path) for path in (self.image, *self.sources)]
        stamps = [(s.st_size, s.st_mtime_ns) for s in stats]
        own = [self.image_id, self.file_name, self.annotations, self.stated_size]
        content = json.dumps([settings, own, stamps], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass
class Segments:
    """The segments of an image.

    Attributes:
        segment_map: (H, W) integers; n is ``segments[n - 1]``, 0 is void.
        segments: dicts with ``category_id`` (dataset id) and ``iscrowd``; none is without pixels.
        hidden: number of objects left out because no pixel of them is visible.
    """

    segment_map: np.ndarray
    segments: list[dict]
    hidden: int = 0


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        made: whether this call made it; False if it already existed.
        panoptic_json, panoptic_png: path of the json, folder of the pngs.
        images, segments: number of images and of segments.
        hidden: number of objects left out because no pixel of them is visible.
        absent: names of the categories without segments.
        crowd_only: names of the categories whose segments are all ``iscrowd``.
    """

    made: bool
    panoptic_json: Path
    panoptic_png: Path
    images: int
    segments: int
    hidden: int
    absent: tuple[str, ...]
    crowd_only: tuple[str, ...]


def require_partners(have: dict[str, Path], need: dict[str, Path], folder: Path) -> None:
    """Raise FileNotFoundError if a file of ``have`` has no partner in ``need``, from ``folder``."""
    alone = [have[key] for key in have if key not in need]
    if alone:
        raise FileNotFoundError(
            f"{folder} has no file of the same name (but for the suffix) for {listing(alone)}. "
            "Add the missing files, or remove those without a partner."
        )


def check_output(output: Path, inputs: list[Path]) -> None:
    """Raise ValueError if results would be written to a folder of ``inputs``, or inside one."""
    for folder in inputs:
        if output.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"the output folder {output} is inside {folder}; choose another one")


def write_dataset(
    items: list[Item],
    convert: Callable[[Item], Segments],
    *,
    output: Path,
    categories: list[dict],
    settings: Any,
    workers: int | None,
) -> Conversion:
    """Write ``panoptic/*.png``, then ``panoptic.json``.

    Images that an interrupted run finished are not converted again unless their files or the
    settings have changed since. The json is written last: if it exists, so does everything else.

    Args:
        convert: returns the segments of an image; must be picklable.
        output: folder; created if missing.
        categories: from :func:`~eseg_d2.apps.convert.categories.check_categories`.
        settings: everything else that the result depends on, as a json can hold it.

    Raises:
        ValueError: an image and its annotation differ in size, or ``convert`` raises it.
        FileExistsError: ``output`` holds something else.
    """
    workers = number_of_workers(workers)
    digests = [item.digest([settings, categories]) for item in items]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    unfinished = output / _UNFINISHED
    made = not _is_made(items, output, digest)
    if made:
        unfinished.mkdir(parents=True, exist_ok=True)
        (output / JSON).unlink(missing_ok=True)
        work = partial(_convert_one, convert=convert, output=output)
        todo = list(zip(items, digests, strict=True))
        records = map_in_processes(work, todo, workers, "panoptic pngs")
        _remove_others(items, output)
        content = {
            "info": {"digest": digest, "hidden": sum(record["hidden"] for record in records)},
            "images": [record["image"] for record in records],
            "annotations": [record["annotation"] for record in records],
            "categories": categories,
        }
        with replacing(output / JSON) as path:
            write_json(path, content)
    shutil.rmtree(unfinished, ignore_errors=True)
    return _summary(output, made)


def _is_made(items: list[Item], output: Path, digest: str) -> bool:
    if (output / JSON).exists():
        content = read_json(output / JSON)
        info = content.get("info") if isinstance(content, dict) else None
        if not isinstance(info, dict) or info.get("digest") != digest:
            raise FileExistsError(
                f"{output / JSON} was made from other files or with other settings. To replace it, "
                f"remove it and the folder {PNGS} beside it, or choose another output folder."
            )
        return all((output / PNGS / item.png).is_file() for item in items)
    if (output / PNGS).exists() and not (output / _UNFINISHED).exists():
        raise FileExistsError(
            f"{output / PNGS} already exists, without {JSON}. Choose another output folder."
        )
    return False


def _convert_one(
    task: tuple[Item, str], *, convert: Callable[[Item], Segments], output: Path
) -> dict[str, Any]:
    """Write the png of one image and its entries for the json; runs in a worker."""
    item, digest = task
    png, record_path = output / PNGS / item.png, output / _UNFINISHED / f"{item.png}.json"
    if png.exists() and record_path.exists():
        record = read_json(record_path)
        if record["digest"] == digest:
            return record
    found = convert(item)
    height, width = found.segment_map.shape
    size = image_size(item.image)
    if size != (height, width):
        raise ValueError(
            f"{item.image} is {size[0]}x{size[1]} pixels (height x width), but {item.label} "
            f"has {height}x{width}; they must have the same size"
        )
    image = {"id": item.image_id, "file_name": item.file_name, "height": height, "width": width}
    record = {
        "digest": digest,
        "hidden": found.hidden,
        "image": image,
        "annotation": {
            "image_id": item.image_id,
            "file_name": item.png,
            "segments_info": _segments_info(found, item.label),
        },
    }
    record_path.unlink(missing_ok=True)
    with replacing(png) as path:
        write_image(path, segment_id_to_rgb(found.segment_map))
    with replacing(record_path) as path:
        write_json(path, record)
    return record


def _segments_info(found: Segments, path: Path) -> list[dict]:
    """Return the segments with ``id``, ``area`` (pixels) and ``bbox`` (x, y, width, height)."""
    count = len(found.segments)
    if count > _MAX_SEGMENTS:
        raise ValueError(f"{path} has {count} segments; a panoptic png holds {_MAX_SEGMENTS}")
    pixels = count_segments(found.segment_map)
    return [
        {"id": number, "area": pixels[number].area, "bbox": list(pixels[number].bbox), **segment}
        for number, segment in enumerate(found.segments, start=1)
    ]


def _remove_others(items: list[Item], output: Path) -> None:
    """Remove pngs left by an interrupted run on other images."""
    wanted = {output / PNGS / item.png for item in items}
    for path in (output / PNGS).rglob("*.png*"):
        if path not in wanted:
            path.unlink()


def _summary(output: Path, made: bool) -> Conversion:
    content = read_json(output / JSON)
    segments = [s for a in content["annotations"] for s in a["segments_info"]]
    seen = {s["category_id"] for s in segments}
    whole = {s["category_id"] for s in segments if not s["iscrowd"]}
    categories = content["categories"]
    return Conversion(
        made=made,
        panoptic_json=output / JSON,
        panoptic_png=output / PNGS,
        images=len(content["images"]),
        segments=len(segments),
        hidden=content["info"]["hidden"],
        absent=tuple(c["name"] for c in categories if c["id"] not in seen),
        crowd_only=tuple(c["name"] for c in categories if c["id"] in seen - whole),
    )
