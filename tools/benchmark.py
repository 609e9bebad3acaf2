#!/usr/bin/env python
"""Measure the speed and memory of parts of the package on this machine.

python tools/benchmark.py relation                       # the pixel-to-region relation
python tools/benchmark.py relation --compile --json relation.json
python tools/benchmark.py relation --count              # its kernels and bytes on a GPU; needs none
python tools/benchmark.py model --config-file configs/cityscapes/eseg_lite_s.yaml \\
    --vs configs/cityscapes/semantic_fpn_R50.yaml --size 512x1024
python tools/benchmark.py model --config-file configs/rsp_panoptic_R50.yaml \\
    --vs detectron2:COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml
python tools/benchmark.py training --config-file configs/rsp_panoptic_R50.yaml \\
    --vs detectron2:COCO-PanopticSegmentation/panoptic_fpn_R_50_3x.yaml
python tools/benchmark.py images --config-file configs/cityscapes/eseg_lite_s.yaml
"""

import argparse
import json
import os
import sys
from pathlib import Path

from arguments import image_size

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports a missing GPU as an error


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    relation = _command(
        commands,
        "relation",
        run_relation,
        "compare the pixel-to-region relation with upsampling and unfolding keys and values",
    )
    relation.add_argument("--channels", type=int, nargs="+", default=[64, 128], metavar="C")
    relation.add_argument(
        "--sizes",
        type=image_size,
        nargs="+",
        default=[(128, 256), (256, 512)],
        metavar="HxW",
        help="size of the queries in pixels",
    )
    relation.add_argument("--region-sizes", type=int, nargs="+", default=[3, 5], metavar="K")
    relation.add_argument("--heads", type=int, default=8, help="number of heads")
    relation.add_argument("--compile", action="store_true", help="also under torch.compile")
    relation.add_argument(
        "--count", action="store_true", help="count kernels and bytes instead of timing"
    )
    _add_machine(relation)
    add_model_parsers(commands)
    add_data_parsers(commands)
    return parser.parse_args(argv)


def _command(commands, name, run, help, repeats=7):
    defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = commands.add_parser(name, help=help, formatter_class=defaults)
    parser.set_defaults(run=run, json=None)
    parser.add_argument("--repeats", type=int, default=repeats, help="timed rounds")
    return parser


def _add_machine(parser):
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the numbers to this file"
    )


def add_model_parsers(commands):
    model = _command(
        commands, "model", run_model, "compare semantic or panoptic models, from image to results"
    )
    training = _command(
        commands,
        "training",
        run_training,
        "compare a training iteration of panoptic models on one image",
    )
    for parser, others in (
        (model, "torchvision:NAME, detectron2:NAME"),
        (training, "detectron2:NAME"),
    ):
        parser.add_argument(
            "--config-file",
            action="append",
            required=True,
            metavar="FILE",
            help=f"may be repeated; also {others}",
        )
        parser.add_argument(
            "--vs",
            action="append",
            default=[],
            metavar="FILE",
            help="a peer, of the same kind; may be repeated; speeds are relative to the last",
        )
        parser.add_argument(
            "--size", type=image_size, default=(512, 1024), metavar="HxW", help="pixels"
        )
        parser.add_argument(
            "--objects", type=int, default=20, metavar="N", help="in the image, if panoptic"
        )
        _add_machine(parser)
    model.add_argument("--no-fuse", action="store_true", help="leave batch norms unfolded")
    model.add_argument(
        "--no-channels-last", action="store_true", help="memory format of convolutions"
    )
    model.add_argument("--autocast", choices=["bfloat16", "float16"], help="mixed precision")
    model.add_argument("--compile", action="store_true", help="torch.compile; CUDA graphs on a GPU")
    model.add_argument(
        "--onnxruntime", action="store_true", help="also run the network in onnxruntime (CPU)"
    )
    model.add_argument(
        "--profile",
        action="store_true",
        help="show in which operations the networks spend their time",
    )


def add_data_parsers(commands):
    images = _command(
        commands,
        "images",
        run_images,
        "compare reading, resizing, normalising and labelling images with Detectron2's way",
        repeats=15,
    )
    images.add_argument("--config-file", required=True, metavar="FILE", help="a semantic model")
    images.add_argument(
        "--photo", type=image_size, default=(1024, 2048), metavar="HxW", help="as stored"
    )
    images.add_argument(
        "--size", type=image_size, default=(512, 1024), metavar="HxW", help="for the network"
    )
    images.add_argument("--threads", type=int, default=1, help="CPU threads")
    quality = _command(
        commands,
        "panoptic-quality",
        run_panoptic_quality,
        "compare panoptic quality with cityscapesscripts' pq_compute on the same pngs",
    )
    quality.add_argument("--images", type=int, default=20, metavar="N")
    quality.add_argument("--size", type=image_size, default=(480, 640), metavar="HxW")
    quality.add_argument("--segments", type=int, default=20, metavar="N", help="of each image")
    loader = _command(
        commands,
        "loader",
        run_loader,
        "compare loading and augmenting with Detectron2's mapper on separate annotations",
        repeats=5,
    )
    loader.add_argument("--config-file", required=True, metavar="FILE", help="augmentations, data")
    loader.add_argument("--images", type=int, default=40, metavar="N", help="the first N")


def run_relation(args):
    import torch

    from eseg_d2.apps.benchmarks.relation_benchmark import (
        benchmark_relation,
        format_row,
        table_header,
    )

    if args.count:
        return count_relations(args)
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
    return rows


def count_relations(args):
    import itertools

    from eseg_d2.apps.benchmarks.relation_benchmark import count_relation

    rows = []
    for c, size, k in itertools.product(args.channels, args.sizes, args.region_sizes):
        counts = count_relation(channels=c, size=size, region_size=k, num_heads=args.heads)
        rows.append({"channels": c, "size": size, "region_size": k, **counts})
        eager, least = counts["eager"], counts["least"]
        compiled = counts.get("compiled", {}).get("kernels", "? (no C++ compiler)")
        print(
            f"C {c}, {size[0]}x{size[1]}, k {k}: {eager['kernels']} kernels eager, {compiled} "
            f"compiled; {eager['bytes'] / 2**20:.0f} MiB read and written eager, "
            f"{least['bytes'] / 2**20:.0f} MiB at least",
            flush=True,
        )
    return rows


def run_model(args):
    import torch

    from eseg_d2.apps.benchmarks.model_benchmark import (
        OnnxPredictor,
        benchmark_models,
        build_predictor,
        format_models,
        format_profile,
    )
    from eseg_d2.utils.markup import short_names

    torch.set_num_threads(args.threads)
    options = {
        "fuse": not args.no_fuse,
        "channels_last": not args.no_channels_last,
        "autocast": getattr(torch, args.autocast) if args.autocast else None,
        "compile": args.compile,
    }
    predictors = {}
    for source, name in short_names([*args.config_file, *args.vs]).items():
        predictor = build_predictor(
            source, args.size, args.device, detections=args.objects, **options
        )
        if args.onnxruntime:
            predictors[f"{name}, onnxruntime"] = OnnxPredictor(predictor, args.size)
        predictors[name] = predictor
    height, width = args.size
    print(f"torch {torch.__version__}, {args.device}, {args.threads} CPU threads, one image of")
    print(f"{height}x{width} at a time, random weights, {args.repeats} rounds in turns; {options}")
    rows = benchmark_models(predictors, args.size, repeats=args.repeats, device=args.device)
    print(format_models(rows))
    if args.profile:
        for name, predictor in predictors.items():
            if isinstance(predictor, OnnxPredictor):
                continue  # PyTorch's profiler does not look into it
            print(f"\n{name}, the network's time by operation:")
            print(format_profile(predictor, args.size, args.device))
    return rows


def run_training(args):
    import torch

    from eseg_d2.apps.benchmarks.training_benchmark import benchmark_training, format_training
    from eseg_d2.utils.markup import short_names

    torch.set_num_threads(args.threads)
    sources = {name: source for source, name in short_names([*args.config_file, *args.vs]).items()}
    options = {"objects": args.objects, "repeats": args.repeats, "device": args.device}
    rows = benchmark_training(sources, args.size, **options)
    height, width = args.size
    print(f"torch {torch.__version__}, {args.device}, {args.threads} CPU threads, one image of")
    print(
        f"{height}x{width}, {args.objects} objects, random weights, {args.repeats} rounds in turns"
    )
    print(format_training(rows))
    return rows


def run_images(args):
    import torch

    from eseg_d2.apps.benchmarks.image_benchmark import benchmark_images, format_images

    torch.set_num_threads(args.threads)
    result = benchmark_images(args.config_file, args.photo, args.size, repeats=args.repeats)
    print(f"torch {torch.__version__}, {args.threads} CPU threads, an image of")
    print("{}x{} for a network that sees {}x{}".format(*args.photo, *args.size))
    print(format_images(result))


def run_panoptic_quality(args):
    from eseg_d2.apps.benchmarks.panoptic_quality_benchmark import benchmark_panoptic_quality

    result = benchmark_panoptic_quality(
        images=args.images, size=args.size, segments=args.segments, repeats=args.repeats
    )
    for name in "ours", "cityscapesscripts":
        low, middle, high = (
            result[name][key] * 1e3 / args.images for key in ("min", "median", "max")
        )
        print(f"{name}: {middle:.2f} ms an image ({low:.2f} - {high:.2f})")
    print(f"{result['speedup']:.1f}x; the PQ differs by {result['difference']:.1e} points")


def run_loader(args):
    from eseg_d2.apps.benchmarks.loader_benchmark import benchmark_loader

    result = benchmark_loader(args.config_file, images=args.images, repeats=args.repeats)
    for name, seconds in result["seconds"].items():
        rates = (result["images"] / seconds[key] for key in ("median", "max", "min"))
        print("{}: {:.1f} images/s ({:.1f} - {:.1f})".format(name, *rates))
    for name, ratio in result["ratios"].items():
        print(f"ours is {ratio:.2f}x as fast as {name}")


def main():
    args = parse_args()
    try:
        rows = args.run(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"benchmark.py: {error}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
