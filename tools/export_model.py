#!/usr/bin/env python3
"""Export a semantic or panoptic model as ONNX, TorchScript or torch.export program, and verify it.

python tools/export_model.py --config-file CONFIG --weights output/model_final.pth \\
    --format onnx --output output/exported --size 512x1024

Input: "image", (1, 3, H, W) float32, 0 .. 255, channels as INPUT.FORMAT says; normalisation is
inside. Output of a semantic model: "labels", (1, H, W) int64, and with --logits "logits",
(1, classes, H, W). A panoptic model (onnx, torchscript) outputs raw predictions, of which
eseg_d2/export/merge.py, numpy alone, makes the panoptic map; see docs/deploy.md.

With --int8 --calibration DIR a semantic model is written in 8-bit integers, too, for CPUs:

python tools/export_model.py --config-file CONFIG --weights output/model_final.pth \\
    --format onnx --output output/exported --int8 --calibration FOLDER_OF_IMAGES
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
    parser.add_argument(
        "--size", type=image_size, metavar="HxW", help="default: the size of INPUT for testing"
    )
    parser.add_argument("--dynamic", action="store_true", help="allow any H and W")
    parser.add_argument("--logits", action="store_true", help="also output the logits")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="also verify on this image"
    )
    parser.add_argument("--int8", action="store_true", help="also export in 8-bit integers (onnx)")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="images like those that the model will see"
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="NAME",
        help="convolutions that stay in fp32, by name or its beginning; give this option last",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    args = parser.parse_args(argv)
    if args.int8 and not (args.calibration and args.format == "onnx"):
        parser.error("--int8 needs --format onnx, and --calibration with a folder of images")
    if (args.calibration or args.keep) and not args.int8:
        parser.error("--calibration and --keep belong to --int8")
    return args


def export(args):
    from eseg_d2.engine import load_config
    from eseg_d2.export.exporter import export_int8, export_model
    from eseg_d2.export.formats import FORMATS

    overrides = [*args.opts, "MODEL.WEIGHTS", args.weights, "MODEL.DEVICE", "cpu"]
    cfg = load_config(args.config_file, overrides)
    options = {
        "size": args.size,
        "dynamic": args.dynamic,
        "with_logits": args.logits,
        "image_files": args.image,
    }
    if args.int8:
        int8_path, info = export_int8(cfg, args.output, args.calibration, keep=args.keep, **options)
    else:
        _, info = export_model(cfg, args.output, args.format, **options)
    result, path = info["agreement"], args.output / FORMATS[args.format]
    print(f"{path}: {info['images']} images, {result['labels']:.4%} of the labels agree", end="")
    print(f", logits within {result['logits']:.1e} of the largest" if args.logits else "", end="")
    print(f" ({result['instances']} instances)" if "instances" in result else "")
    if args.int8:
        print(f"{int8_path}: {describe_int8(info['int8'], cfg.DATASETS.TEST)}")


def describe_int8(int8, datasets):
    miou, spent = int8["mIoU"], int8["milliseconds"]
    quality = "mIoU not measured: DATASETS.TEST is not there"
    if miou:
        quality = f"mIoU on {datasets[0]} {miou['fp32']:.2f} in fp32, {miou['int8']:.2f} in int8"
    return (
        f"calibrated on {int8['calibration_images']} images, {int8['labels']:.2%} of the labels "
        f"agree with fp32; {quality}; {spent['fp32']:.1f} ms an image in fp32, "
        f"{spent['int8']:.1f} ms in int8: {spent['fp32'] / spent['int8']:.2f}x"
    )


def main():
    args = parse_args()
    try:
        export(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"export_model.py: {error}")


if __name__ == "__main__":
    main()
