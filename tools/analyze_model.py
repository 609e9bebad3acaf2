#!/usr/bin/env python3
"""Print parameters and multiply-adds of configured models by part, relative to the first one.

One multiply-add counts as one, as in fvcore. Convolutions, matrix products and the products of the
pixel-to-region relation are counted; other operations are listed as not counted. Nothing is
computed (meta tensors), so no weights, data or memory for activations are needed.

python tools/analyze_model.py --config-file configs/cityscapes/deeplab_v3_R101.yaml \\
    --config-file configs/cityscapes/rsp_semantic_R101.yaml --size 1024x2048
"""

import argparse
import json
import sys
from pathlib import Path

from arguments import image_size


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", action="append", required=True, metavar="FILE", help="may be repeated"
    )
    parser.add_argument(
        "--size",
        type=image_size,
        default=(1024, 2048),
        metavar="HxW",
        help="size of the image in pixels; default 1024x2048",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the numbers to this file"
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides for all configs"
    )
    return parser.parse_args(argv)


def main():
    args = parse_args()
    from eseg_d2.evaluation.complexity import analyze_config, format_table

    try:
        results = [analyze_config(path, args.size, args.opts) for path in args.config_file]
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"analyze_model.py: {error}")
    height, width = args.size
    print(
        f"One image of {height}x{width}; 1 G = 1e9 multiply-adds (one multiply-add counts as one)"
    )
    print(format_table(results))
    print("\nNot counted (operation: calls, elements of the results):")
    for result in results:
        ops = (f"{u['op']}: {u['calls']}, {u['elements']:.3g}" for u in result["uncounted"])
        print(f"  {result['config']}\n    " + "\n    ".join(ops))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
