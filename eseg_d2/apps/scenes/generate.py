"""Make a data set of street scenes: each image from its own seed, in several processes."""

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eseg_d2.utils.json_yaml import write_json
from eseg_d2.utils.parallel import map_in_processes, number_of_workers

from . import cityscapes_format, coco_format
from .render import render_scene

__all__ = ["generate_street_scenes"]

_FORMATS = {"cityscapes": cityscapes_format, "coco": coco_format}
_SPLITS = ("train", "val")
_VERSION = 1
"""Incremented whenever the same arguments give other pictures."""

_RECORD = "street_scenes.json"
_UNFINISHED = ".street_scenes_unfinished"
_SIZES = (64, 4096)


def _checked(format: str, counts: dict[str, int], size: tuple[int, int], seed: int) -> dict:
    """Check the arguments; return the record of them that is stored beside the data."""
    if format not in _FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(_FORMATS)}")
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"num_{split} is {count}, expected at least 1")
    if len(size) != 2 or not all(_SIZES[0] <= edge <= _SIZES[1] for edge in size):
        raise ValueError(
            f"size is {'x'.join(map(str, size))}, expected height x width, each "
            f"{_SIZES[0]} to {_SIZES[1]} pixels, such as 128x256"
        )
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    return {
        "version": _VERSION,
        "format": format,
        "num_train": counts["train"],
        "num_val": counts["val"],
        "size": list(size),
        "seed": seed,
    }


def _is_made(output: Path, arguments: dict[str, Any]) -> bool:
    """Return whether ``output`` holds exactly this data set.

    Raises:
        FileExistsError: ``output`` holds something else.
    """
    record = output / _RECORD
    if record.exists():
        try:
            found = json.loads(record.read_text())
        except ValueError:
            found = {}
        if found == arguments:
            return True
        changed = [
            f"{key} {found.get(key)} instead of {value}"
            for key, value in arguments.items()
            if found.get(key) != value
        ]
        raise FileExistsError(
            f"{output} holds street scenes made with {', '.join(changed)}. "
            f"Remove it or choose another output folder."
        )
    if output.exists() and not (output / _UNFINISHED).exists() and any(output.iterdir()):
        raise FileExistsError(
            f"{output} is not empty and holds no street scenes. Choose another output folder."
        )
    return False


def _staging(output: Path, top_level: tuple[str, ...]) -> Path:
    """Create an empty work folder inside ``output``; remove what an interrupted run left."""
    staging = output / _UNFINISHED
    if staging.exists():
        for name in top_level:
            shutil.rmtree(output / name, ignore_errors=True)
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    return staging


def _make_one(
    index: int, *, root: Path, format: str, split: str, size: tuple[int, int], seed: int
) -> Any:
    """Render and write one scene; runs in a worker."""
    sequence = np.random.SeedSequence((seed, _SPLITS.index(split), index))
    scene = render_scene(sequence, *size)
    return _FORMATS[format].write_scene(root, split, index, scene)


def generate_street_scenes(
    output: str | os.PathLike,
    *,
    format: str,
    num_train: int,
    num_val: int,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
) -> bool:
    """Make the built-in data set.

    Every file depends on the arguments alone, not on the number of workers or the time. Files are
    written to a hidden folder inside ``output`` first; an interrupted run starts from scratch.

    Args:
        output: folder of the data set: Cityscapes' or COCO's root. Created if missing; it must be
            empty, left by an interrupted run, or hold this very data set.
        format: "cityscapes" (leftImg8bit and gtFine) or "coco" (COCO panoptic).
        num_train: number of training images, at least 1.
        num_val: number of validation images, at least 1.
        size: (height, width) in pixels, each 64 to 4096.
        seed: a non-negative integer.
        workers: number of processes; by default one for each CPU this process may use.

    Returns:
        True if the data set was made, False if it already existed.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: ``output`` holds something else.
        OSError: ``output`` cannot be written.
    """
    counts = {"train": num_train, "val": num_val}
    arguments = _checked(format, counts, size, seed)
    workers = number_of_workers(workers)
    output = Path(output)
    if _is_made(output, arguments):
        return False

    layout = _FORMATS[format]
    staging = _staging(output, layout.TOP_LEVEL)
    for split, count in counts.items():
        layout.prepare(staging, split, count)
        make = partial(
            _make_one, root=staging, format=format, split=split, size=tuple(size), seed=seed
        )
        records = map_in_processes(make, range(count), workers, f"{split} scenes")
        layout.finish(staging, split, records)
    for name in layout.TOP_LEVEL:
        os.replace(staging / name, output / name)
    write_json(staging / _RECORD, arguments)
    os.replace(staging / _RECORD, output / _RECORD)
    staging.rmdir()
    return True
