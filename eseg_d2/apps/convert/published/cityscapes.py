"""Cityscapes: train id maps and panoptic files from the downloaded instanceIds pngs."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from eseg_d2.apps.convert.input_files import read_label_png
from eseg_d2.data.panoptic_png import count_segments, segment_id_to_rgb
from eseg_d2.utils.errors import listing
from eseg_d2.utils.files import replacing
from eseg_d2.utils.json_yaml import read_json, write_json
from eseg_d2.utils.parallel import map_in_processes, number_of_workers

__all__ = ["prepare_cityscapes"]

_INSTANCES = "_gtFine_instanceIds.png"
_TRAIN_IDS = "_gtFine_labelTrainIds.png"


def prepare_cityscapes(
    root: Path, splits: Iterable[str] = ("train", "val"), workers: int | None = None
) -> dict[str, int]:
    """Make the train id maps and the panoptic files of Cityscapes.

    For each image it writes ``*_gtFine_labelTrainIds.png``, which Detectron2's semantic loader
    reads, equal to what cityscapesscripts' ``createTrainIdLabelImgs`` makes from the polygons; and
    ``cityscapes_panoptic_SPLIT/*.png`` with a json, with label ids, as ``convert2panoptic`` does.
    Existing files are not made again. The json is written last: if it exists, so does everything
    else.

    Args:
        root: folder with ``leftImg8bit`` and ``gtFine`` (``*_instanceIds.png``).
        splits: any of ``train`` and ``val``.
        workers: number of processes; by default one for each CPU.

    Returns:
        The number of images of each split.

    Raises:
        FileNotFoundError: downloaded files are missing; the message names them and their source.
        ValueError: a file is not as Cityscapes publishes it; the message names it.
    """
    workers = number_of_workers(workers)
    files = {split: _instance_files(root, split) for split in splits}
    for split, paths in files.items():
        folder = root / "gtFine" / f"cityscapes_panoptic_{split}"
        json_path = folder.with_suffix(".json")
        if _is_made(json_path, paths):
            continue
        folder.mkdir(exist_ok=True)
        json_path.unlink(missing_ok=True)
        convert = partial(_convert_one, folder=folder)
        entries = map_in_processes(convert, paths, workers, f"{split} panoptic")
        images, annotations = zip(*entries, strict=True)
        content = {"images": images, "annotations": annotations, "categories": _categories()}
        with replacing(json_path) as target:
            write_json(target, content)
    return {split: len(paths) for split, paths in files.items()}


def _instance_files(root: Path, split: str) -> list[Path]:
    """Return the instanceIds pngs of a split in cityscapesscripts' order; their images exist."""
    for kind in "leftImg8bit", "gtFine":
        if not (root / kind / split).is_dir():
            raise FileNotFoundError(
                f"there is no folder {root / kind / split}. Download {kind}_trainvaltest.zip from "
                f"https://www.cityscapes-dataset.com/downloads/ and unpack it in {root}"
            )
    paths = sorted((root / "gtFine" / split).glob(f"*/*{_INSTANCES}"), key=str)
    if not paths:
        raise FileNotFoundError(
            f"{root / 'gtFine' / split} holds no */*{_INSTANCES}: unpack gtFine_trainvaltest.zip "
            f"in {root}"
        )
    images = root / "leftImg8bit" / split
    wanted = [
        images / path.parent.name / path.name.replace(_INSTANCES, "_leftImg8bit.png")
        for path in paths
    ]
    missing = [path for path in wanted if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"images of leftImg8bit_trainvaltest.zip are missing: {listing(missing)}"
        )
    return paths


def _is_made(json_path: Path, paths: list[Path]) -> bool:
    if not json_path.exists():
        return False
    try:
        listed = {a["file_name"] for a in read_json(json_path)["annotations"]}
    except (ValueError, KeyError, TypeError):  # left by a killed csCreatePanopticImgs
        return False
    derived = [path.with_name(path.name.replace(_INSTANCES, _TRAIN_IDS)) for path in paths]
    derived += [json_path.with_suffix("") / _panoptic_name(path) for path in paths]
    return listed == set(map(_panoptic_name, paths)) and all(path.exists() for path in derived)


def _panoptic_name(path: Path) -> str:
    return path.name.replace(_INSTANCES, "_gtFine_panoptic.png")


def _convert_one(path: Path, *, folder: Path) -> tuple[dict, dict]:
    """Write both pngs of an image unless they exist; return its entries for the json."""
    from cityscapesscripts.helpers.labels import id2label

    try:
        numbers = read_label_png(path)  # label id * 1000 + n for objects, else the label id
        found = count_segments(numbers)
        label_ids = {number: number if number < 1000 else number // 1000 for number in found}
        unknown = sorted(set(label_ids.values()) - set(id2label))
        if unknown:
            raise ValueError(f"pixels have the unknown label ids {listing(unknown)}")
    except ValueError as e:
        raise ValueError(f"cannot convert {path}: {e}. Is the file as published?") from e
    labels = {number: id2label[label_id] for number, label_id in label_ids.items()}
    train_ids = np.full(max(found) + 1, 255, np.uint8)
    kept = np.zeros(max(found) + 1, np.int64)
    segments = []
    for number, label in labels.items():
        train_ids[number] = label.trainId
        if label.ignoreInEval:
            continue
        kept[number] = number
        segments.append(
            {
                "id": number,
                "category_id": label.id,
                "area": found[number].area,
                "bbox": list(found[number].bbox),
                "iscrowd": int(label.hasInstances and number < 1000),
            }
        )
    _write(path.with_name(path.name.replace(_INSTANCES, _TRAIN_IDS)), train_ids[numbers])
    _write(folder / _panoptic_name(path), segment_id_to_rgb(kept[numbers]))
    image_id = path.name.removesuffix(_INSTANCES)
    height, width = numbers.shape
    file_name = f"{image_id}_gtFine_leftImg8bit.png"  # as cityscapesscripts writes it
    image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
    name = _panoptic_name(path)
    return image, {"image_id": image_id, "file_name": name, "segments_info": segments}


def _write(path: Path, pixels: np.ndarray) -> None:
    if not path.exists():
        with replacing(path) as target:
            Image.fromarray(pixels).save(target, format="PNG")


def _categories() -> list[dict]:
    from cityscapesscripts.helpers.labels import labels

    return [
        {
            "id": label.id,
            "name": label.name,
            "color": label.color,
            "supercategory": label.category,
            "isthing": int(label.hasInstances),
        }
        for label in labels
        if not label.ignoreInEval
    ]
