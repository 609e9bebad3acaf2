#!/usr/bin/env python3
"""Run a panoptic, semantic or instance model on images, videos or a camera.

python demo/demo.py --model scenes_rsp_panoptic --input demo/images --output output/pictures

runs a model of weights/. One that you trained, on all kinds of input:

python demo/demo.py --config-file CONFIG --input street.jpg photos/ 'more/*.png' drive.mp4 \\
    --output results --save overlay,json --opts MODEL.WEIGHTS output/model_final.pth

Without --output pictures are shown in a window. A file that cannot be read does not stop the
others. Exit status: 0 all done, 1 something failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import sys
import time
from pathlib import Path

RESULTS = ("overlay", "side_by_side", "labels", "json")
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


def parse_arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--config-file", metavar="FILE")
    model.add_argument("--model", metavar="NAME", help="a trained model of weights/")
    parser.add_argument(
        "--input", nargs="+", default=[], metavar="PATH", help="images, videos, globs, folders"
    )
    parser.add_argument("--video-input", metavar="FILE", help="a video, whatever its suffix")
    parser.add_argument(
        "--webcam", type=int, nargs="?", const=0, metavar="N", help="camera N; default 0"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a folder, or a file for one result",
    )
    parser.add_argument(
        "--save",
        type=_results,
        default=("overlay",),
        metavar="LIST",
        help=f"what to write, of {','.join(RESULTS)}; default overlay",
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        metavar="SCORE",
        help="objects below are left out, 0 .. 1; default 0.5",
    )
    parser.add_argument("--batch-size", type=_positive, default=1, metavar="N", help="default 1")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument(
        "--max-pixels",
        type=_positive,
        metavar="N",
        help="refuse images with more; default 67 million",
    )
    video = parser.add_argument_group("videos")
    video.add_argument("--start", type=int, default=0, metavar="FRAME", help="first; default 0")
    video.add_argument("--stop", type=int, metavar="FRAME", help="the first that is left out")
    video.add_argument("--stride", type=int, default=1, metavar="N", help="every Nth; default 1")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="overrides of the config; the last argument",
    )
    args = parser.parse_args(argv)
    _check_combination(parser, args)
    return args


def _check_combination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    files = bool(args.input or args.video_input)
    if files == (args.webcam is not None):
        parser.error("give --input and --video-input, or --webcam")
    if args.output is None and args.save != ("overlay",):
        parser.error(f"--save {','.join(args.save)} needs --output")
    if args.webcam is not None and (args.batch_size, args.start, args.stride) != (1, 0, 1):
        parser.error("--batch-size, --start and --stride are not for --webcam")


def _results(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(RESULTS):
        expected = f"expected some of {','.join(RESULTS)}"
        raise argparse.ArgumentTypeError(f"got {text!r}, {expected}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected 1 or more")
    return number


def build_predictor(args: argparse.Namespace):
    from eseg_d2 import Predictor
    from eseg_d2.config import load_config, pretrained_config

    if args.model is not None:
        cfg = pretrained_config(args.model, args.opts)
    else:
        cfg = load_config(args.config_file, args.opts)
    threshold = args.confidence_threshold
    if threshold is None and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        threshold = 0.5  # as Detectron2's demo
    return Predictor.from_config(cfg, device=args.device, confidence_threshold=threshold)


def run_images(predictor, sources, plan, window, args) -> list[str]:
    """Predict and write or show all images; returns the failures."""
    from tqdm import tqdm

    from eseg_d2.data.images import MAX_PIXELS
    from eseg_d2.inference.drawing import draw_prediction
    from eseg_d2.inference.outputs import save_prediction
    from eseg_d2.inference.predict_files import predict_files

    failures, begin = [], time.perf_counter()
    options = {"batch_size": args.batch_size, "max_pixels": args.max_pixels or MAX_PIXELS}
    results = predict_files(predictor, [s.path for s in sources], **options)
    with tqdm(total=len(sources), desc="images", unit=" images", bar_format=BAR) as bar:
        for path, image, result in results:
            try:
                if isinstance(result, Exception):
                    raise result
                if window is None:
                    save_prediction(image, result, predictor.classes, plan[path], file_name=path)
                else:
                    overlay = draw_prediction(image, result, predictor.classes)
                    window.show_and_wait(overlay, path)
            except (ValueError, OSError, MemoryError) as error:
                failures.append(_failure(path, error))
                bar.set_postfix(failed=len(failures))
            bar.update()
    done, seconds = len(sources) - len(failures), time.perf_counter() - begin
    print(f"{done} of {len(sources)} images, {done / seconds:.2f} images/s")
    return failures


def run_video(predictor, frames, paths, window, args, *, fps, total: int | None) -> None:
    """Predict and write or show the frames of one video or camera."""
    from tqdm import tqdm

    from eseg_d2.inference.outputs import FrameOutputs
    from eseg_d2.inference.predict_files import predict_frames
    from eseg_d2.visualization.window import WindowClosed

    show = None if window is None else window.show
    outputs = FrameOutputs(paths, predictor.classes, fps=fps, stride=args.stride, show=show)
    bar = tqdm(total=total, desc="frames", unit=" images", bar_format=BAR if total else None)
    try:
        with bar, outputs:
            predict_frames(
                predictor, frames, outputs, batch_size=args.batch_size, on_frame=bar.update
            )
    except WindowClosed:
        pass
    finally:
        for line in outputs.describe():
            print(line)


def run_video_file(predictor, source, plan, window, args) -> list[str]:
    from eseg_d2.inference.video import FrameRange, VideoReader

    try:
        selected = FrameRange(args.start, args.stop, args.stride)
        with VideoReader(source.path) as reader:
            total = selected.count(reader.num_frames) or None
            frames = reader.frames(selected)
            paths = plan.get(source.path, {})
            run_video(predictor, frames, paths, window, args, fps=reader.fps, total=total)
    except (ValueError, OSError, MemoryError) as error:
        return [_failure(source.path, error)]
    return []


def run_webcam(predictor, number: int, paths, window, args) -> None:
    from itertools import islice

    from eseg_d2.inference.video import Camera

    with Camera(number) as camera:
        frames = islice(camera.frames(), args.stop)
        run_video(predictor, frames, paths, window, args, fps=camera.fps, total=args.stop)


def _failure(path: str, error: Exception) -> str:
    message = str(error) or type(error).__name__
    return message if path in message else f"{path}: {message}"


def run(args: argparse.Namespace) -> list[str]:
    """All that was asked for; returns the failures."""
    from eseg_d2.inference.outputs import plan_outputs
    from eseg_d2.inference.sources import Source, find_sources
    from eseg_d2.inference.video import FrameRange, require_av
    from eseg_d2.visualization.window import Window

    FrameRange(args.start, args.stop, args.stride)
    if args.webcam is None:
        sources = find_sources(args.input, [args.video_input] if args.video_input else [])
    else:
        sources = [Source(f"camera {args.webcam}", f"camera_{args.webcam}", True)]
    if any(source.is_video for source in sources):
        require_av()
    window = Window() if args.output is None else None
    plan = {} if args.output is None else plan_outputs(args.output, sources, args.save)
    predictor = build_predictor(args)
    if args.webcam is not None:
        run_webcam(predictor, args.webcam, plan.get(sources[0].path, {}), window, args)
        return []
    images = [source for source in sources if not source.is_video]
    failures = run_images(predictor, images, plan, window, args) if images else []
    for source in sources:
        if source.is_video:
            failures += run_video_file(predictor, source, plan, window, args)
    if args.output is not None:
        print(f"results: {args.output}")
    return failures


def main(argv=None) -> None:
    args = parse_arguments(argv)
    sys.stdout.reconfigure(errors="backslashreplace")  # names need not suit the terminal
    from eseg_d2.inference.sources import printable

    try:
        failures = run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"demo.py: {printable(str(error))}")
    except KeyboardInterrupt:
        print("demo.py: interrupted", file=sys.stderr)
        sys.exit(130)
    if failures:
        lines = "".join("\n  " + printable(f.replace("\n", "\\n")) for f in failures)
        sys.exit(f"demo.py: {len(failures)} failed:{lines}")


if __name__ == "__main__":
    main()
