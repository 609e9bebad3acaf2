#!/usr/bin/env python3
"""Convert your own annotations to the COCO panoptic format, one split at a time:
OUTPUT/panoptic/*.png and OUTPUT/panoptic.json. Prints the lines for DATASETS.PANOPTIC.
An interrupted run continues when the same command is given again. See docs/data.md."""

import argparse
import sys
from pathlib import Path


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    maps = kinds.add_parser(
        "label-maps",
        help="label pngs and, for things, instance pngs",
        description="""Label pngs and instance pngs, of 8 or 16 bit or with a palette. Files of the
        same image have the same name but for the suffix; folders in folders are fine. A segment is
        a stuff class, or a thing class with an instance number. Pixels of a thing class with
        instance 0 are a crowd (iscrowd) of that class.""",
    )
    coco = kinds.add_parser(
        "coco",
        help="a COCO instance json, and stuff in pngs or in a json",
        description="""A COCO instance json, whose categories are the things, and stuff: pngs of 8
        or 16 bit or with a palette, another COCO json, or categories with "isthing": 0 in the
        same one. Objects are painted over stuff, smaller ones over larger ones, all of them over
        crowds; what is then fully hidden is left out and counted.""",
    )
    for kind in maps, coco:
        kind.add_argument("--images", type=Path, required=True, metavar="DIR", help="jpgs or pngs")
    maps.add_argument("--labels", type=Path, required=True, metavar="DIR",
                      help="pngs whose pixels are category ids")  # fmt: skip
    maps.add_argument("--instances", type=Path, metavar="DIR",
                      help="pngs whose pixels are instance numbers, unique within a class or "
                      "within the image, 0 for none; required if there are things")  # fmt: skip
    maps.add_argument("--categories", type=Path, required=True, metavar="FILE",
                      help="json or yaml list of {id, name, isthing} and, if you like, color "
                      "[R, G, B]; without --instances isthing is 0 if left out")  # fmt: skip
    coco.add_argument("--instances", type=Path, required=True, metavar="JSON",
                      help="COCO instance json: polygons or RLE")  # fmt: skip
    coco.add_argument("--stuff", type=Path, metavar="DIR_OR_JSON",
                      help="pngs whose pixels are stuff category ids, named as images; or a COCO "
                      "json (.json) whose categories are stuff; nothing if the instance json has "
                      "them, with isthing 0")  # fmt: skip
    coco.add_argument("--stuff-categories", type=Path, metavar="FILE",
                      help="for stuff pngs: json or yaml list of {id, name}, or a COCO stuff "
                      "json")  # fmt: skip
    for kind in maps, coco:
        kind.add_argument("--output", type=Path, required=True, metavar="DIR",
                          help="created if missing")  # fmt: skip
        kind.add_argument("--ignore", type=int, nargs="*", metavar="VALUE",
                          help="values of pixels without a class, which become void (default: 255; "
                          "none if nothing follows); of a json of stuff: ids of categories that "
                          "are left out (default: none)")  # fmt: skip
        kind.add_argument(
            "--name", help="name of the data set (default: that of the output folder)"
        )
        kind.add_argument("--workers", type=int, metavar="W", help="processes (default: all CPUs)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 made or already there, 1 an error, 130 interrupted."""
    args = _parse(arguments)
    from eseg_d2.utils.errors import exit_status

    return exit_status(lambda: _convert(**vars(args)), if_interrupted="the same command continues")


def _convert(kind: str, name: str | None, **args) -> None:
    import yaml

    from eseg_d2.apps.convert import convert_coco, convert_label_maps

    if args["ignore"] is not None:
        args["ignore"] = tuple(args["ignore"])
    convert = {"label-maps": convert_label_maps, "coco": convert_coco}[kind]
    found = convert(**{key: value for key, value in args.items() if value is not None})
    state = "made" if found.made else "already made"
    print(f"{args['output']}: {state}, {found.images} images, {found.segments} segments")
    if found.hidden:
        print(f"left out: {found.hidden} objects without a visible pixel")
    if found.absent:
        print(f"without a pixel: {', '.join(found.absent)}")
    if found.crowd_only:
        print(f"things of crowds alone, which teach no instance: {', '.join(found.crowd_only)}")
    entry = {
        "name": name or args["output"].resolve().name,
        "images": str(args["images"].resolve()),
        "panoptic_png": str(found.panoptic_png.resolve()),
        "panoptic_json": str(found.panoptic_json.resolve()),
    }
    print("\nFor your configuration:\n")
    print(yaml.safe_dump({"DATASETS": {"PANOPTIC": [entry]}}, sort_keys=False, width=1000), end="")


if __name__ == "__main__":
    sys.exit(main())
