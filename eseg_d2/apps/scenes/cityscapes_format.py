"""Scenes as Cityscapes files: leftImg8bit, gtFine and cityscapes_panoptic_{train,val}.

cityscapesscripts itself makes the panoptic files, with label ids (not train ids), as Detectron2
expects them.
"""

import contextlib
import io
from pathlib import Path

from tqdm import tqdm

from eseg_d2.utils.files import write_image
from eseg_d2.utils.json_yaml import write_json

from .labels import color_table, train_id_table
from .render import Scene

__all__ = ["TOP_LEVEL", "finish", "prepare", "write_scene"]

TOP_LEVEL = ("leftImg8bit", "gtFine")
"""Folders of a finished data set."""

_TOWNS = {
    "train": ("ahornau", "birkenfurt", "eschenbrueck", "kiefernstein", "lindental", "ulmenhof"),
    "val": ("tannenburg", "weidenstadt"),
}


def _name(split: str, index: int) -> tuple[str, str]:
    """Return the town and the stem of an image; as in Cityscapes, frame 19 is annotated."""
    towns = _TOWNS[split]
    town = towns[index % len(towns)]
    return town, f"{town}_{index // len(towns):06d}_000019"


def prepare(root: Path, split: str, count: int) -> None:
    """Create the folders of a split."""
    (root / "gtFine" / f"cityscapes_panoptic_{split}").mkdir(parents=True)
    for kind in TOP_LEVEL:
        (root / kind / split).mkdir(parents=True)
        for town in _TOWNS[split][:count]:
            (root / kind / split / town).mkdir()


def write_scene(root: Path, split: str, index: int, scene: Scene) -> None:
    """Write the image and the annotations of one scene."""
    town, stem = _name(split, index)
    write_image(root / "leftImg8bit" / split / town / f"{stem}_leftImg8bit.png", scene.image)
    annotation = root / "gtFine" / split / town / f"{stem}_gtFine"
    labels = scene.label_ids
    write_image(Path(f"{annotation}_labelIds.png"), labels)
    write_image(Path(f"{annotation}_labelTrainIds.png"), train_id_table()[labels])
    write_image(Path(f"{annotation}_instanceIds.png"), scene.instance_ids)
    write_image(Path(f"{annotation}_color.png"), color_table()[labels])
    objects = [{"label": o.label, "polygon": o.polygon.tolist()} for o in scene.objects]
    height, width = labels.shape
    content = {"imgHeight": height, "imgWidth": width, "objects": objects}
    write_json(Path(f"{annotation}_polygons.json"), content)


class _Progress(io.TextIOBase):
    """A stream that turns the output of convert2panoptic into steps of a progress bar."""

    def __init__(self, bar: tqdm):
        self._bar = bar

    def write(self, text: str) -> int:
        self._bar.update(text.count("Progress:"))
        return len(text)


def finish(root: Path, split: str, records: list[None]) -> None:
    """Add the panoptic images and json of a split once all its scenes are written."""
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    bar = tqdm(total=len(records), desc=f"{split} panoptic", unit="image")
    with bar, contextlib.redirect_stdout(_Progress(bar)):
        convert2panoptic(str(root / "gtFine"), setNames=[split])
