#!/usr/bin/env python3
"""Export a semantic or panoptic model as ONNX, TorchScript or torch.export program, and verify it.

python tools/export_model.py --config-file CONFIG --weights output/model_final.pth \\
    --format onnx --output output/exported --size 512x1024

Input: "image", (1, 3, H, W) float32, 0 .. 255, channels as INPUT.FORMAT says; normalisation is
inside. Output of a semantic model: "labels", (1, H, W) int64, and with --logits "logits",
(1, classes, H, W). A panoptic model (onnx, torchscript) outputs raw predictions, of which
eseg_d2/export/merge.py, numpy alone, makes the panoptic map; see docs/deploy.md.
"""

import argparse
import sys
from pathlib import Path

from arguments import image_size


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint")
    parser.add_argument("--format", required=True, choices=("onnx", "torchscript", "torch_export"))
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--size", type=image_size, metavar="HxW", help="default: that of the tests")
    parser.add_argument("--dynamic", action="store_true", help="any H and W")
    parser.add_argument("--logits", action="store_true", help="also output the logits")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="also verify on it"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args(argv)


def export(args):
    from eseg_d2.engine import load_config
    from eseg_d2.export.run import export_model

    overrides = [*args.opts, "MODEL.WEIGHTS", args.weights, "MODEL.DEVICE", "cpu"]
    path, info = export_model(
        load_config(args.config_file, overrides),
        args.output,
        args.format,
        size=args.size,
        dynamic=args.dynamic,
        with_logits=args.logits,
        image_files=args.image,
    )
    result = info["agreement"]
    print(f"{path}: {info['images']} images, {result['labels']:.4%} of the labels agree", end="")
    print(f", logits within {result['logits']:.1e} of the largest" if args.logits else "", end="")
    print(f" ({result['instances']} instances)" if "instances" in result else "")


def main():
    args = parse_args()
    try:
        export(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"export_model.py: {error}")


if __name__ == "__main__":
    main()
