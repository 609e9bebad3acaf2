"""Cityscapes: what is made of the downloaded instanceIds pngs, image by image."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from eseg_d2.apps.convert.input_files import read_label_png
from eseg_d2.utils.errors import listing
from eseg_d2.utils.files import replacing
from eseg_d2.utils.json_yaml import read_json, write_json
from eseg_d2.utils.parallel import map_in_processes, number_of_workers

__all__ = ["prepare_cityscapes"]

_INSTANCES = "_gtFine_instanceIds.png"


def prepare_cityscapes(
    root: Path, splits: Iterable[str] = ("train", "val"), workers: int | None = None
) -> dict[str, int]:
    """Make label maps of train ids and the panoptic files of Cityscapes.

    For each image ``*_gtFine_labelTrainIds.png``, which Detectron2's semantic loader reads: what
    cityscapesscripts' ``createTrainIdLabelImgs`` makes of the polygons, which are not needed; and
    ``cityscapes_panoptic_SPLIT/*.png`` with a json, with label ids, as its ``convert2panoptic``
    makes them. What is there is not made again. The json is written last: if it is there, so is
    everything.

    Args:
        root: folder with ``leftImg8bit`` and ``gtFine`` (``*_instanceIds.png``).
        splits: of ``train``, ``val``.
        workers: number of processes; by default one for each CPU.

    Returns:
        The number of images of each split.

    Raises:
        FileNotFoundError: downloaded files are missing; the message says which, and from where.
        ValueError: a file is not as Cityscapes publishes it; its name is given.
    """
    workers = number_of_workers(workers)
    files = {split: _instance_files(root, split) for split in splits}
    for split, paths in files.items():
        todo = [path for path in paths if not _train_id_path(path).exists()]
        if todo:
            map_in_processes(_write_train_ids, todo, workers, f"{split} train ids")
        if not _is_made(root / "gtFine", split, paths):
            _make_panoptic(root / "gtFine", split, paths, workers)
        shutil.rmtree(_unfinished(root / "gtFine", split), ignore_errors=True)
    return {split: len(paths) for split, paths in files.items()}


def _instance_files(root: Path, split: str) -> list[Path]:
    """Return the instanceIds pngs of a split in cityscapesscripts' order, all with their images."""
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
            f"leftImg8bit_trainvaltest.zip holds, but there is no {listing(missing)}"
        )
    return paths


def _train_id_path(path: Path) -> Path:
    return path.with_name(path.name.replace(_INSTANCES, "_gtFine_labelTrainIds.png"))


def _panoptic_name(path: Path) -> str:
    return path.name.replace(_INSTANCES, "_gtFine_panoptic.png")


def _unfinished(gt_fine: Path, split: str) -> Path:
    """Folder of what an interrupted run leaves for the next one."""
    return gt_fine / f".unfinished_{split}"


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors, with what cityscapesscripts has printed."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    except (KeyError, ValueError, TypeError, SyntaxError, OSError, SystemExit) as e:
        if isinstance(e, OSError) and e.errno:  # a full disk, say; Pillow's own have no number
            raise
        raise ValueError(
            f"cannot convert {path}: {e!r} {printed.getvalue().strip()}. "
            "Is the file as published, and complete?"
        ) from e


def _write_train_ids(path: Path) -> None:
    from cityscapesscripts.helpers.labels import id2label

    table = np.full(max(id2label) + 1, 255, np.uint8)
    for id_, label in id2label.items():
        if id_ >= 0:  # -1 is never drawn
            table[id_] = label.trainId
    with _named(path), replacing(_train_id_path(path)) as target:
        numbers = read_label_png(path)
        ids = np.where(numbers < 1000, numbers, numbers // 1000)
        if ids.max(initial=0) >= len(table):
            raise ValueError(
                f"a pixel has the label id {ids.max()}; expected 0 .. {len(table) - 1}"
            )
        Image.fromarray(table[ids]).save(target, format="PNG")


def _is_made(gt_fine: Path, split: str, paths: list[Path]) -> bool:
    json_path = gt_fine / f"cityscapes_panoptic_{split}.json"
    if not json_path.exists():
        return False
    try:
        listed = {a["file_name"] for a in read_json(json_path)["annotations"]}
    except (ValueError, KeyError, TypeError):  # what a killed csCreatePanopticImgs leaves
        return False
    wanted = {_panoptic_name(path) for path in paths}
    folder = json_path.with_suffix("")
    return listed == wanted and all((folder / name).exists() for name in wanted)


def _make_panoptic(gt_fine: Path, split: str, paths: list[Path], workers: int) -> None:
    json_path = gt_fine / f"cityscapes_panoptic_{split}.json"
    folder, unfinished = json_path.with_suffix(""), _unfinished(gt_fine, split)
    for needed in folder, unfinished:
        needed.mkdir(exist_ok=True)
    json_path.unlink(missing_ok=True)
    convert = partial(_convert_one, split=split, folder=folder, unfinished=unfinished)
    parts = map_in_processes(convert, paths, workers, f"{split} panoptic")
    content = {
        "images": [image for part in parts for image in part["images"]],
        "annotations": [annotation for part in parts for annotation in part["annotations"]],
        "categories": parts[0]["categories"],
    }
    with replacing(json_path) as target:
        write_json(target, content)


def _convert_one(path: Path, *, split: str, folder: Path, unfinished: Path) -> dict:
    """Writes the panoptic png of one image; returns the json that holds it alone."""
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    name = _panoptic_name(path)
    part = unfinished / f"{name}.json"
    if part.exists() and (folder / name).exists():
        return read_json(part)
    # it converts a whole folder at once: give it one with this image alone
    with tempfile.TemporaryDirectory(dir=unfinished) as work, _named(path):
        city = Path(work, split, path.parent.name)
        city.mkdir(parents=True)
        (city / path.name).symlink_to(path.resolve())
        convert2panoptic(work, work, setNames=[split])
        made = Path(work, f"cityscapes_panoptic_{split}")
        os.replace(made / name, folder / name)
        os.replace(made.with_suffix(".json"), part)
    return json.loads(part.read_text())
