#!/usr/bin/env python3
"""Compare the RSP head with Semantic FPN and DeepLabV3 on the same backbone and recipe.

Trains every configuration with every seed by train_net.py and writes study.json, study.md (a
table) and study.png (a plot) into the output folder. After an interruption the same command
continues from the last checkpoints; finished runs are used again.

python tools/study.py --output output/study
python tools/study.py --output output/study --seeds 1,2,3,4 SOLVER.MAX_ITER 1200
python tools/study.py --output output/panoptic_study \\
    --config-file configs/scenes/rsp_panoptic_R18_cityscapes.yaml \\
    --config-file configs/scenes/panoptic_fpn_R18_cityscapes.yaml
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = [
    ROOT / "configs" / "scenes" / f"{name}_R50.yaml"
    for name in ("rsp_semantic", "semantic_fpn", "deeplab_v3")
]


def _seeds(text):
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers such as 1,2,3") from None


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/study"), metavar="DIR")
    parser.add_argument(
        "--config-file",
        action="append",
        type=Path,
        metavar="FILE",
        help="may be repeated; default: RSP, Semantic FPN and DeepLabV3 on scenes",
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=[1, 2, 3], metavar="N,N,...", help="default 1,2,3"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="number of runs at a time; default: CPUs",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides for all runs"
    )
    return parser.parse_args(argv)


def main():
    args = parse_args()
    from eseg_d2.apps.benchmarks.study import make_runs, report, train_all

    try:
        runs = make_runs(args.config_file or CONFIGS, args.seeds, args.output)
        train_all(runs, ROOT / "train_net.py", args.opts, jobs=args.jobs)
        print(report(runs, args.output))
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"study.py: {error}")
    except KeyboardInterrupt:
        sys.exit("study.py: interrupted; the same command continues")


if __name__ == "__main__":
    main()
