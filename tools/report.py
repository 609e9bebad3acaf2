#!/usr/bin/env python3
"""Write one HTML file about a run, or comparing several: curves, metrics, classes, images, cost.

The page needs no network and no other file. Predictions are kept in the run's folder, in
report_images, and used again. Checkpoints are read without executing anything
in them. --images 0 leaves the pictures out.

python tools/report.py --run output/scenes_cityscapes
python tools/report.py --run output/a --run output/b --images 100 --output comparison.html
"""

import argparse
import sys
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        action="append",
        type=Path,
        required=True,
        metavar="OUTPUT_DIR",
        help="folder of a run of train_net.py; repeat it to compare runs",
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="predict N validation images, spread over the data set; default all, 0 for none",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="default: the run's final or last checkpoint"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.html",
        help="default: report.html (comparison.html) in the (first) run's folder",
    )
    args = parser.parse_args(argv)
    if args.images is not None and args.images < 0:
        parser.error(f"--images {args.images}: expected 0 or more")
    if args.weights and len(args.run) > 1:
        parser.error("--weights is for one --run")
    name = "report.html" if len(args.run) == 1 else "comparison.html"
    args.output = args.output or args.run[0] / name
    return args


def main():
    args = parse_args()
    from eseg_d2.apps.report import build_report

    try:
        page = build_report(args.run, images=args.images, weights=args.weights)
        args.output.write_text(page, "utf-8", errors="xmlcharrefreplace")
    except (ValueError, OSError) as error:
        sys.exit(f"report.py: {error}")
    except KeyboardInterrupt:
        sys.exit("report.py: interrupted; the same command continues where it was")
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
