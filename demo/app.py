#!/usr/bin/env python3
"""A page in the browser to try a model on.

python demo/app.py --config-file CONFIG --weights output/model_final.pth --examples photos/
"""

import argparse
import shutil
import signal
import sys
from pathlib import Path


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--weights", default="", metavar="FILE", help="default: the config's MODEL.WEIGHTS"
    )
    parser.add_argument(
        "--examples", type=Path, metavar="FOLDER", help="images to choose from; the first 24"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="default 127.0.0.1: for this machine only"
    )
    parser.add_argument("--port", type=int, help="default: a free one from 7860 on")
    parser.add_argument(
        "--max-upload-mb", type=float, default=20, metavar="MB", help="of a file; default 20"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=2**25, metavar="N", help="of an image; default 33 million"
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="SCORE",
        help="objects below are left out, 0 .. 1; default 0.5",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="overrides of the config; the last argument",
    )
    return parser.parse_args(argv)


def build_predictor(args: argparse.Namespace):
    from eseg_d2 import Predictor
    from eseg_d2.engine import load_config

    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    cfg = load_config(args.config_file, [*args.opts, *weights])
    threshold = args.confidence_threshold
    if threshold is None and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        threshold = 0.5  # as demo.py
    return Predictor.from_config(cfg, device=args.device, confidence_threshold=threshold)


def run(args: argparse.Namespace) -> None:
    from eseg_d2.app.safety import Limits, private_folder

    limits = Limits(round(args.max_upload_mb * 1e6), args.max_pixels)
    folder = private_folder()  # before gradio is imported
    try:
        from eseg_d2.app.page import build_page, serve
        from eseg_d2.app.service import Service

        predictor = build_predictor(args)
        service = Service(predictor, folder=folder, limits=limits, examples=args.examples)
        page = build_page(service)
        serve(page, folder=folder, limits=limits, host=args.host, port=args.port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv=None) -> None:
    args = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    try:
        run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
