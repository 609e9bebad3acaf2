#!/usr/bin/env python3
"""Show a data set as the model sees it in training: augmented images with their labels.

It writes a self-contained HTML file, and a contact sheet beside it, FILE.png.

python tools/browse_dataset.py --config-file configs/scenes/rsp_panoptic_R18_cityscapes.yaml \\
    --count 12 --output samples.html
"""

import argparse
import sys
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument(
        "--dataset", metavar="NAME", help="default: the first of the config's DATASETS.TRAIN"
    )
    parser.add_argument(
        "--count", type=int, default=12, metavar="N", help="number of images; default 12"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed that chooses and augments images; default 0"
    )
    parser.add_argument(
        "--no-augmentation", action="store_true", help="show the images without augmentation"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.html")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the config"
    )
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count {args.count}: expected 1 or more")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: expected 0 or more")
    if args.output.suffix.lower() not in (".html", ".htm"):
        parser.error(f"--output {args.output}: expected a name that ends in .html")
    return args


def run(args) -> list[Path]:
    """Draw and write the samples; return the files."""
    from eseg_d2.apps.report import dataset_page, draw_samples
    from eseg_d2.engine import load_config
    from eseg_d2.utils.files import write_image
    from eseg_d2.visualization import contact_sheet

    cfg = load_config(args.config_file, args.opts)
    names = [args.dataset] if args.dataset else [*cfg.DATASETS.TRAIN]
    if not names:
        raise ValueError(f"{args.config_file}: DATASETS.TRAIN is empty; give --dataset")
    samples = draw_samples(
        cfg, names[0], args.count, seed=args.seed, augment=not args.no_augmentation
    )
    args.output.write_text(dataset_page(samples, args.seed), "utf-8", errors="xmlcharrefreplace")
    if not samples.rows:
        return [args.output]
    sheet = args.output.with_suffix(".png")
    write_image(sheet, contact_sheet(samples.rows))
    return [args.output, sheet]


def main():
    args = parse_args()
    try:
        files = run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"browse_dataset.py: {error}")
    except KeyboardInterrupt:
        sys.exit("browse_dataset.py: interrupted")
    for path in files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
