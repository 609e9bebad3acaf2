#!/usr/bin/env python3
"""Turn a finished run into a file of weights/ and its card.

python tools/pack_weights.py --run output/camvid --name camvid_eseg_lite_s \\
    --config-file configs/camvid/eseg_lite_s.yaml --test-set camvid_test \\
    --use "research only, as CamVid"
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, metavar="OUTPUT_DIR")
    parser.add_argument("--name", required=True, help="of the model: weights/NAME.safetensors")
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="of configs/, as the run's"
    )
    parser.add_argument("--test-set", required=True, metavar="NAME", help="to evaluate on")
    parser.add_argument("--use", required=True, metavar="TEXT", help="who may use it for what")
    return parser.parse_args(argv)


def main():
    args = parse_args()
    from detectron2.utils.logger import setup_logger

    from eseg_d2.apps.cards import pack_run

    setup_logger(name="eseg_d2")
    target = ROOT / "weights" / f"{args.name}.safetensors"
    try:
        card = pack_run(
            args.run,
            target,
            config_file=args.config_file,
            test_set=args.test_set,
            use=args.use,
            examples=ROOT / "demo" / "images",
        )
    except (ValueError, OSError) as error:
        sys.exit(f"pack_weights.py: {error}")
    print(f"{target}: {card['bytes'] / 1e6:.1f} MB, on the example images {card['examples']}")


if __name__ == "__main__":
    main()
