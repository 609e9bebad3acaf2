#!/usr/bin/env python3
"""Check panoptic data sets before training: jsons, images, pngs, and train against val.

Every file is read. Exit status: 0 no errors, 1 errors, 2 wrong usage, 130 interrupted.

python tools/check_dataset.py --config-file configs/rsp_panoptic_R50.yaml
python tools/check_dataset.py --dataset scenes_coco_panoptic_train \\
    --dataset scenes_coco_panoptic_val --html report.html
"""

import argparse
import sys
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config-file", metavar="FILE", help="check its DATASETS.TRAIN and DATASETS.TEST"
    )
    what.add_argument(
        "--dataset",
        action="append",
        metavar="NAME",
        help="check this data set; may be repeated. Train and val are matched by their names",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of processes; default: all CPUs"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all findings to this file"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write them as a page to this file"
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides for the config"
    )
    args = parser.parse_args(argv)
    if args.dataset and args.opts:
        parser.error(f"KEY VALUE overrides are for --config-file; got {args.opts}")
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers {args.workers}: expected 1 or more")
    for path in args.json, args.html:
        if path and not path.absolute().parent.is_dir():
            parser.error(f"there is no folder {path.absolute().parent} to write {path.name} to")
    return args


def read_sources(args):
    """Return the data sets to check; raise ValueError if there are none, or they are unclear."""
    from eseg_d2.apps.doctor import sources_from_config, sources_from_names
    from eseg_d2.engine import merge_config

    if args.dataset:
        return sources_from_names(args.dataset)
    cfg = merge_config(args.config_file, args.opts)  # load_config refuses broken data sets
    sources = sources_from_config(cfg)
    if not sources:
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        raise ValueError(f"{args.config_file}: no panoptic data set among {names}")
    return sources


def run(args) -> int:
    """Check, print and write; return the exit status."""
    from eseg_d2.apps.doctor import check_datasets, format_page, format_report
    from eseg_d2.utils.json_yaml import write_json

    report = check_datasets(read_sources(args), workers=args.workers)
    sys.stdout.reconfigure(errors="backslashreplace")  # names need not suit the terminal
    print(format_report(report))
    if args.json:
        write_json(args.json, report.as_dict(), indent=1, sort_keys=False)
    if args.html:
        args.html.write_text(format_page(report), "utf-8", errors="xmlcharrefreplace")
    return 1 if report.count("error") else 0


def main():
    args = parse_args()
    try:
        sys.exit(run(args))
    except (ValueError, OSError) as error:
        print(f"check_dataset.py: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("check_dataset.py: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
