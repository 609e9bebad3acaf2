#!/usr/bin/env python3
"""Compare the RSP head with Semantic FPN and DeepLabV3 on the same backbone and recipe.

Trains every configuration with every seed by train_net.py and writes study.json, study.md (a
table) and study.png (a plot) into the output folder. After an interruption the same command
continues from the last checkpoints; finished runs are used again. With --equal-time all configs
but the first are then trained once more, for the iterations that take as long as the first one's.

python tools/study.py --output output/study
python tools/study.py --output output/study --seeds 1,2,3,4 SOLVER.MAX_ITER 1200
python tools/study.py --output output/panoptic_study --equal-time \\
    --config-file configs/scenes/rsp_panoptic_R18_cityscapes.yaml \\
    --config-file configs/scenes/panoptic_fpn_R18_cityscapes.yaml
"""

import argparse
import os
import signal
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
        "--equal-time",
        action="store_true",
        help="compare all with the first config at its time, too, besides at equal steps",
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides for all runs"
    )
    return parser.parse_args(argv)


def main():
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the trainings, too
    from eseg_d2.apps.benchmarks.study import equal_time_runs, make_runs, train_all
    from eseg_d2.apps.benchmarks.study_report import report

    try:
        runs = make_runs(args.config_file or CONFIGS, args.seeds, args.output, args.opts)
        equal_time = []
        train_all(runs, ROOT / "train_net.py", jobs=args.jobs)
        if args.equal_time:
            equal_time = equal_time_runs(runs, args.output)
            train_all(equal_time, ROOT / "train_net.py", jobs=args.jobs)
        print(report(runs, args.output, equal_time))
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"study.py: {error}")
    except KeyboardInterrupt:
        sys.exit("study.py: interrupted; the same command continues")


if __name__ == "__main__":
    main()
