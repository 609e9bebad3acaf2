#!/usr/bin/env python3
"""Make a short video of a street scene, over which the camera pans, to try demo.py on.

python demo/make_video.py --output output/street.mp4
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

HEIGHT, WIDTH = 192, 384
FPS, STEP = 12, 3  # frames a second, pixels a frame


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".mp4, .mkv or .webm"
    )
    parser.add_argument("--frames", type=int, default=36, metavar="N", help="1 to 99; default 36")
    parser.add_argument("--seed", type=int, default=7, help="of the scene; default 7")
    args = parser.parse_args(argv)
    if args.output.suffix not in (".mp4", ".mkv", ".webm"):
        parser.error(f"--output {args.output}: expected a file ending in .mp4, .mkv or .webm")
    if not 1 <= args.frames <= 99:
        parser.error(f"--frames {args.frames}: expected 1 to 99")
    return args


def make_video(path: Path, num_frames: int, seed: int) -> str:
    """Write the video, and return a description of it."""
    import numpy as np

    from eseg_d2.apps.scenes.render import render_scene
    from eseg_d2.inference.video import VideoWriter

    width = WIDTH + STEP * num_frames
    scene = render_scene(np.random.SeedSequence(seed), HEIGHT, width + width % 2).image
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, Fraction(FPS)) as writer:
        for left in range(0, STEP * num_frames, STEP):
            writer.write(scene[:, left : left + WIDTH])
    return writer.describe()


def main(argv=None) -> None:
    args = parse_arguments(argv)
    try:
        print(make_video(args.output, args.frames, args.seed))
    except (ValueError, OSError) as error:
        sys.exit(f"make_video.py: {error}")


if __name__ == "__main__":
    main()
