#!/usr/bin/env python3
"""A page in the browser to try a model on.

python demo/app.py --model scenes_rsp_panoptic --examples demo/images
python demo/app.py --config-file CONFIG --weights output/model_final.pth --examples photos/
"""

import argparse
import signal
import sys
from pathlib import Path


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--config-file", metavar="FILE")
    model.add_argument("--model", metavar="NAME", help="a trained model of weights/")
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
        default=0.5,
        metavar="SCORE",
        help="objects below are left out at first, 0 .. 1; default 0.5",
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


def build_service(args: argparse.Namespace):
    from eseg_d2 import Predictor
    from eseg_d2.apps.page.limits import Limits
    from eseg_d2.apps.page.service import Service
    from eseg_d2.config import load_config, pretrained_config

    limits = Limits(round(args.max_upload_mb * 1e6), args.max_pixels)
    overrides = [*args.opts, *(["MODEL.WEIGHTS", args.weights] if args.weights else [])]
    if args.model is not None:
        cfg, name = pretrained_config(args.model, overrides), args.model
    else:
        cfg, path = load_config(args.config_file, overrides), Path(args.config_file).resolve()
        # the config of a run is always called config.yaml: its folder says more
        name = path.parent.name if path.name == "config.yaml" else path.stem
    return Service(
        Predictor.from_config(cfg, device=args.device),
        name=name,
        limits=limits,
        threshold=args.confidence_threshold,
        examples=args.examples,
    )


def main(argv=None) -> None:
    args = parse_arguments(argv)
    # so that temporary files are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from eseg_d2.apps.page.server import build_app, listen, serve

        app = build_app(build_service(args), host=args.host)
        serve(app, listen(args.host, args.port))
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        sys.exit(f"app.py: the page needs {error.name}: pip install -e '.[app]'")
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
