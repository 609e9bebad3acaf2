"""COCO: check that the published files are in place and complete."""

from dataclasses import dataclass
from pathlib import Path

from eseg_d2.utils.errors import listing
from eseg_d2.utils.json_yaml import read_json

__all__ = ["SplitCheck", "check_coco"]

PUBLISHED = {"train": 118_287, "val": 5_000}
_ARCHIVE = "http://images.cocodataset.org"
_ANNOTATIONS = f"{_ARCHIVE}/annotations/panoptic_annotations_trainval2017.zip"


@dataclass(frozen=True)
class SplitCheck:
    """The result of checking a split.

    Attributes:
        images: number of images that its json lists; 0 if the json cannot be read.
        published: number of images of the split that COCO publishes.
        problems: one message for each thing that is missing or wrong; empty if all is well.
    """

    images: int
    published: int
    problems: tuple[str, ...]


def check_coco(root: Path, split: str) -> SplitCheck:
    """Check the images, panoptic pngs and panoptic json of COCO 2017, or of data in its layout.

    Counts are compared with the json, so a subset of COCO passes as well.

    Args:
        root: folder with ``annotations``, ``train2017``, ...
        split: ``train`` or ``val``.
    """
    path = root / "annotations" / f"panoptic_{split}2017.json"
    try:
        content = read_json(path)
        images = [image["file_name"] for image in content["images"]]
        pngs = [annotation["file_name"] for annotation in content["annotations"]]
    except FileNotFoundError:
        return SplitCheck(
            0,
            PUBLISHED[split],
            (f"there is no {path}; get {_ANNOTATIONS} and unpack it in {root}",),
        )
    except (ValueError, KeyError, TypeError) as e:
        problem = f"{path} cannot be read ({e!r}); unpack {_ANNOTATIONS} again"
        return SplitCheck(0, PUBLISHED[split], (problem,))
    problems = []
    if len(images) != len(pngs):
        problems.append(f"{path} lists {len(images)} images, but annotates {len(pngs)}")
    problems += _compare(
        root / f"{split}2017", images, f"{_ARCHIVE}/zips/{split}2017.zip and unpack it in {root}"
    )
    folder = root / f"panoptic_{split}2017"
    within = f"annotations/panoptic_{split}2017.zip from {_ANNOTATIONS} and unpack it in {root}"
    misplaced = root / "annotations" / folder.name
    if misplaced.is_dir() and not folder.exists():
        problems.append(f"{misplaced} is in the wrong place; move it to {folder}")
    else:
        problems += _compare(folder, pngs, within, exactly=True)
    return SplitCheck(len(images), PUBLISHED[split], tuple(problems))


def _compare(folder: Path, wanted: list[str], source: str, exactly: bool = False) -> list[str]:
    if not folder.is_dir():
        return [f"there is no folder {folder}; get {source}"]
    found = {path.name for path in folder.iterdir() if path.suffix in (".jpg", ".png")}
    missing = [name for name in wanted if name not in found]
    problems = []
    if missing:
        problems.append(
            f"{folder} lacks {len(missing)} of {len(wanted)} files ({listing(missing)}); "
            f"get {source}"
        )
    others = found - set(wanted)
    if exactly and others:
        problems.append(f"{folder} holds {len(others)} files its json lacks: {listing(others)}")
    return problems
