#!/usr/bin/env python3
"""Make the files that Detectron2 reads from Cityscapes' instanceIds pngs: labelTrainIds pngs, and
panoptic pngs with their json. Existing files are not made again, and an interrupted run
continues."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 everything is there, 1 an error, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="folder with leftImg8bit and gtFine (default: "
                        "$DETECTRON2_DATASETS/cityscapes, else ./datasets/cityscapes)")  # fmt: skip
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=["train", "val"],
                        help="default: train val")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: all CPUs)")
    args = parser.parse_args(arguments)

    from eseg_d2.apps.convert.published import prepare_cityscapes
    from eseg_d2.data.datasets.builtin import dataset_root
    from eseg_d2.utils.errors import exit_status

    root = args.root or Path(dataset_root(), "cityscapes")

    def prepare() -> None:
        for split, count in prepare_cityscapes(root, args.splits, args.workers).items():
            print(f"{root}: {split} is ready, {count} images")

    return exit_status(prepare, if_interrupted="the same command continues")


if __name__ == "__main__":
    sys.exit(main())
