#!/usr/bin/env python3
"""Draw where a pixel takes its context from, level by level, in a model with RSP.

python demo/draw_relation.py --config-file CONFIG --input image.png --pixel 90 200 \\
    --output relation.png MODEL.WEIGHTS output/model_final.pth

Without --pixel a window opens: click on the image.
"""

import argparse
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--input", required=True, metavar="IMAGE")
    parser.add_argument("--pixel", type=int, nargs=2, metavar=("ROW", "COLUMN"))
    parser.add_argument("--output", default="relation.png", metavar="PICTURE")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def ask_for_pixel(image) -> tuple[int, int]:
    """Show the image, and return the clicked (row, column)."""
    import matplotlib.pyplot as plt

    if plt.get_backend().lower() == "agg":
        raise ValueError("there is no window to click in: give --pixel ROW COLUMN")
    plt.imshow(image)
    plt.title("click on a pixel")
    clicks = plt.ginput(1, timeout=0)
    plt.close()
    if not clicks:
        raise ValueError("no pixel was clicked: give --pixel ROW COLUMN")
    column, row = (int(x) for x in clicks[0])
    return row, column


def draw(args: argparse.Namespace) -> None:
    from eseg_d2 import Predictor
    from eseg_d2.inference import read_image
    from eseg_d2.visualization import relation

    image = read_image(args.input)[:, :, ::-1]  # to RGB
    height, width = image.shape[:2]
    pixel = tuple(args.pixel) if args.pixel else ask_for_pixel(image)
    if not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise ValueError(
            f"--pixel {pixel[0]} {pixel[1]} is outside {args.input}: rows are 0 .. {height - 1}, "
            f"columns 0 .. {width - 1}"
        )
    if not Path(args.output).resolve().parent.is_dir():
        raise FileNotFoundError(f"--output {args.output}: there is no such folder")
    predictor = Predictor(args.config_file, overrides=args.opts)
    weights, seen = relation.image_relation_weights(predictor, image[:, :, ::-1])
    stride = relation.find_rsp(predictor.model).common_stride
    levels = list(weights.values())
    maps, strides = relation.pixel_context(levels, pixel, (height, width), seen, stride)
    relation.draw_context(image, pixel, maps, strides, seen, args.output)
    print(f"pixel {pixel[0]}, {pixel[1]}: {args.output}")


def main() -> None:
    args = parse_arguments()
    try:
        draw(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"draw_relation.py: {error}")


if __name__ == "__main__":
    main()
