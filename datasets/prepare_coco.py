#!/usr/bin/env python3
"""Check that COCO's published files are in place and complete. There is nothing to convert.
It lists what is missing, and which archive holds it."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 everything is there, 1 something is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="folder with annotations, train2017, ... (default: "
                        "$DETECTRON2_DATASETS/coco, else ./datasets/coco)")  # fmt: skip
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=["train", "val"],
                        help="default: train val")  # fmt: skip
    args = parser.parse_args(arguments)

    from eseg_d2.apps.convert.published import check_coco
    from eseg_d2.data.datasets.builtin import dataset_root

    root = args.root or Path(dataset_root(), "coco")
    complete = True
    for split in args.splits:
        found = check_coco(root, split)
        whole = "" if found.images == found.published else f" (COCO has {found.published})"
        print(f"{root}: {split} has {found.images} images{whole}")
        for problem in found.problems:
            print(f"  {problem}")
        complete = complete and not found.problems
    instances = root / "annotations" / "instances_val2017.json"
    if not instances.exists():
        print(f"optional, for AP as it is published: {instances} of annotations_trainval2017.zip")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
