"""CamVid in the 11-class form of the SegNet tutorial, converted to the COCO panoptic format."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from eseg_d2.apps.convert import convert_label_maps
from eseg_d2.apps.convert.input_files import find_files
from eseg_d2.data.datasets.builtin import CAMVID_CATEGORIES, CAMVID_SOURCE
from eseg_d2.utils.files import replacing
from eseg_d2.utils.json_yaml import read_json, write_json

__all__ = ["CAMVID_IMAGES", "prepare_camvid"]

CAMVID_IMAGES = {"train": 367, "val": 101, "test": 233}
_VOID = 11
_PNG_SUFFIXES = (".png",)


def prepare_camvid(
    source: Path,
    root: Path,
    splits: Iterable[str] = ("train", "val", "test"),
    workers: int | None = None,
) -> dict[str, int]:
    """Copy the photographs and convert the label pngs of CamVid.

    The layout of ``root`` is ``SPLIT/images/*.png``, ``SPLIT/panoptic/*.png`` and
    ``SPLIT/panoptic.json`` for each split, and ``trainval.json``, which lists the images of
    ``train`` and ``val`` together if both exist. Existing files are not made again.

    Args:
        source: the folder ``CamVid`` of a clone of the tutorial, with ``train``, ``trainannot``
            and so on; label ids are 0..10, and 11 is void.
        root: the folder to write, such as ``datasets/camvid``.
        splits: any of ``train``, ``val`` and ``test``.
        workers: the number of processes; by default one for each CPU.

    Returns:
        The number of images of each split.

    Raises:
        FileNotFoundError: ``source`` lacks a folder or an annotation.
        ValueError: a split does not have the published number of images, or a label png is
            invalid; the message names it.
        FileExistsError: ``root`` holds something that was made from other files.
    """
    splits = tuple(splits)
    photographs = {split: _find_split(source, split) for split in splits}
    root.mkdir(parents=True, exist_ok=True)
    categories = root / "categories.json"
    with replacing(categories) as path:
        write_json(path, CAMVID_CATEGORIES)
    for split, paths in photographs.items():
        _copy(paths, root / split / "images")
        convert_label_maps(
            images=root / split / "images",
            labels=source / f"{split}annot",
            categories=categories,
            output=root / split,
            ignore=(_VOID,),
            workers=workers,
        )
    _join(root, ("train", "val"), root / "trainval.json")
    return {split: len(paths) for split, paths in photographs.items()}


def _find_split(source: Path, split: str) -> list[Path]:
    for folder in source / split, source / f"{split}annot":
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}. Clone {CAMVID_SOURCE} and give its folder CamVid "
                "as the source."
            )
        found = len(find_files(folder, _PNG_SUFFIXES))
        if found != CAMVID_IMAGES[split]:
            raise ValueError(
                f"{folder} holds {found} pngs, but CamVid has {CAMVID_IMAGES[split]} there. Clone "
                f"{CAMVID_SOURCE} again: the folder is incomplete, or files were added."
            )
    return list(find_files(source / split, _PNG_SUFFIXES).values())


def _copy(paths: list[Path], folder: Path) -> None:
    for path in paths:
        target = folder / path.name
        if not target.exists() or target.stat().st_size != path.stat().st_size:
            with replacing(target) as temporary:
                # keeps the time stamp, by which the conversion recognises an unchanged file
                shutil.copy2(path, temporary)


def _join(root: Path, splits: tuple[str, ...], output: Path) -> None:
    """Write one json for several splits, with paths relative to ``root``."""
    if not all((root / split / "panoptic.json").exists() for split in splits):
        return
    images, annotations = [], []
    for split in splits:
        content = read_json(root / split / "panoptic.json")
        first = len(images)
        for image in content["images"]:
            name = f"{split}/images/{image['file_name']}"
            images.append({**image, "id": first + image["id"], "file_name": name})
        for annotation in content["annotations"]:
            name = f"{split}/panoptic/{annotation['file_name']}"
            number = first + annotation["image_id"]
            annotations.append({**annotation, "image_id": number, "file_name": name})
    content = {"images": images, "annotations": annotations, "categories": CAMVID_CATEGORIES}
    with replacing(output) as path:
        write_json(path, content)
