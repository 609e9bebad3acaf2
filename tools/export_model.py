#!/usr/bin/env python3
"""Export a semantic model as ONNX, TorchScript or torch.export program, and verify it.

python tools/export_model.py --config-file CONFIG --weights output/model_final.pth \\
    --format onnx --output output/exported --size 512x1024

Input: "image", (1, 3, H, W) float32, 0 .. 255, channels as INPUT.FORMAT says; normalisation is
inside. Output: "labels", (1, H, W) int64, and with --logits "logits", (1, classes, H, W).
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
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint")
    parser.add_argument("--format", required=True, choices=("onnx", "torchscript", "torch_export"))
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--size", type=image_size, metavar="HxW", help="default: that of the tests")
    parser.add_argument("--dynamic", action="store_true", help="any H and W")
    parser.add_argument("--logits", action="store_true", help="output the logits, too")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="verify on it, too"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args(argv)


def export(args):
    import numpy as np
    import torch
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model
    from PIL import Image

    from eseg_d2.data.panoptic_png import read_image
    from eseg_d2.engine import fetch_weights, load_config
    from eseg_d2.export.semantic import SemanticGraph, export_graph, load_exported
    from eseg_d2.export.verify import compare_outputs, require_agreement

    overrides = [*args.opts, "MODEL.WEIGHTS", args.weights, "MODEL.DEVICE", "cpu"]
    cfg = load_config(args.config_file, overrides)
    if cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        raise ValueError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; semantic models "
            "(SemanticSegmentor) can be exported"
        )
    fetch_weights(cfg.MODEL.WEIGHTS)
    model = build_model(cfg).eval()
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    size = args.size or (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    if args.dynamic and args.format == "torchscript":
        print("A trace keeps what depends on sizes of the example; it is verified at others.")
    graph = SemanticGraph(model, with_logits=args.logits).eval()
    path = export_graph(graph, args.output, args.format, size, dynamic=args.dynamic)
    sizes = [size]
    if args.dynamic:
        step = graph.divisibility
        sizes += [(size[0] + step + 1, size[1] - step // 2), (2 * step, 3 * step)]
    rng = np.random.default_rng(0)
    images = [rng.uniform(0, 255, (3, *s)).astype(np.float32) for s in sizes]
    for file in args.image:
        image = read_image(file, cfg.INPUT.FORMAT)
        if not args.dynamic:
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        images.append(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))
    exported = load_exported(path)
    result = compare_outputs(model, exported, images)
    require_agreement(result, str(path))
    info = {
        "input": {"name": "image", "shape": [1, 3, *(["H", "W"] if args.dynamic else size)]},
        "channels": cfg.INPUT.FORMAT,
        "torch": torch.__version__,
        "agreement": result,
    }
    (args.output / "model.json").write_text(json.dumps(info, indent=1) + "\n")
    print(f"{path}: {len(images)} images, {result['labels']:.4%} of the labels agree", end="")
    print(f", logits within {result['logits']:.1e} of the largest" if args.logits else "")


def main():
    args = parse_args()
    try:
        export(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"export_model.py: {error}")


if __name__ == "__main__":
    main()
