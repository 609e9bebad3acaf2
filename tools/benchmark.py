#!/usr/bin/env python
"""Measures speed and memory of parts of the package on this machine.

python tools/benchmark.py relation                       # the pixel-to-region relation
python tools/benchmark.py relation --compile --json relation.json
"""

import argparse
import json
import os
from pathlib import Path

from arguments import image_size

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports a missing GPU as an error


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    relation = commands.add_parser(
        "relation",
        help="the pixel-to-region relation against upsampling and unfolding keys and values",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    relation.set_defaults(run=run_relation)
    relation.add_argument("--channels", type=int, nargs="+", default=[64, 128], metavar="C")
    relation.add_argument(
        "--sizes",
        type=image_size,
        nargs="+",
        default=[(128, 256), (256, 512)],
        metavar="HxW",
        help="of the queries, in pixels",
    )
    relation.add_argument("--region-sizes", type=int, nargs="+", default=[3, 5], metavar="K")
    relation.add_argument("--heads", type=int, default=8, help="number of heads")
    relation.add_argument("--repeats", type=int, default=7, help="timed rounds")
    relation.add_argument("--threads", type=int, default=2, help="CPU threads")
    relation.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    relation.add_argument("--compile", action="store_true", help="also under torch.compile")
    relation.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    return parser.parse_args(argv)


def run_relation(args):
    import torch

    from eseg_d2.analysis.relation_benchmark import benchmark_relation, format_row, table_header

    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.device}, {args.threads} CPU threads; speed and memory")
    print("relative to the eager textbook way; memory is PyTorch's peak beyond the inputs")
    print(table_header(), flush=True)
    rows = []
    for row in benchmark_relation(
        channels=args.channels,
        sizes=args.sizes,
        region_sizes=args.region_sizes,
        num_heads=args.heads,
        repeats=args.repeats,
        device=args.device,
        compiled=args.compile,
    ):
        print(format_row(row), flush=True)
        rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def main():
    args = parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
