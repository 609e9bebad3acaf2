#!/usr/bin/env python3
"""Make the built-in data set: street scenes of a toy town in Cityscapes' or COCO's format."""

import argparse
import sys


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HEIGHTxWIDTH such as 128x256")
    return int(height), int(width)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 made or already there, 1 an error, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, metavar="DIR", help="Cityscapes' or COCO's root")
    parser.add_argument("--format", required=True, choices=("cityscapes", "coco"))
    parser.add_argument("--num-train", type=int, default=400, metavar="N", help="default: 400")
    parser.add_argument("--num-val", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--size", type=_size, default=(128, 256), metavar="HxW",
                        help="height x width in pixels (default: 128x256)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--workers", type=int, metavar="W", help="processes (default: all CPUs)")
    args = parser.parse_args(arguments)

    from eseg_d2.apps.scenes import generate_street_scenes
    from eseg_d2.utils.errors import exit_status

    def make() -> None:
        made = generate_street_scenes(**vars(args))
        print(f"{args.output}: {'made' if made else 'already made'}")

    return exit_status(make, if_interrupted="the same command starts again")


if __name__ == "__main__":
    sys.exit(main())
