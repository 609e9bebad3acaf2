#!/usr/bin/env python3
"""Street scenes to panoptic pictures: make scenes, train on them, evaluate, draw.

The training continues from weights/scenes_rsp_panoptic for some minutes. Each step is one command
that could be typed by hand; it is printed. What is there already (the scenes, a trained model) is
used again: delete the output folder to train anew. To start from random weights, which takes an
hour:

python demo/make_demo.py MODEL.WEIGHTS "" SOLVER.BASE_LR 0.03 SOLVER.MAX_ITER 2050
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGE = 40  # pixels of the images' 192
CONFIG = ROOT / "configs" / "scenes" / "rsp_panoptic_R50_finetune.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="a folder")
    parser.add_argument("--seed", type=int, default=1, help="of the training; default 1")
    parser.add_argument("--num-train", type=int, default=600, help="scenes; default 600")
    parser.add_argument("--num-val", type=int, default=60, help="unseen scenes; default 60")
    parser.add_argument("--num-pictures", type=int, default=12, help="default 12")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the config"
    )
    return parser.parse_args()


def run(*command: str | Path) -> None:
    """Print and run a command of this project; exit with its status if it fails."""
    words = [str(word) for word in command]
    print("\n$ python " + " ".join(words), flush=True)
    status = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if status:
        sys.exit(f"make_demo.py: that command failed with status {status}")


def make_scenes(folder: Path, args: argparse.Namespace) -> None:
    counts = ("--num-train", str(args.num_train), "--num-val", str(args.num_val))
    options = ("--format", "cityscapes", *counts, "--size", "192x384", "--seed", "1")
    run("datasets/make_street_scenes.py", "--output", folder, *options)


def train(folder: Path, args: argparse.Namespace) -> None:
    if (folder / "model_final.pth").exists() and (folder / "results.json").exists():
        print(f"\nA trained model is in {folder}: it is used again.", flush=True)
        return
    settings = ("OUTPUT_DIR", folder, "SEED", str(args.seed), *args.opts)
    run("train_net.py", "--config-file", CONFIG.relative_to(ROOT), "--resume", *settings)


def predict(run_folder: Path, output: Path, num_pictures: int) -> tuple[list[Path], int, int]:
    """Predict all validation images.

    Returns:
        Pictures (input | ground truth | prediction) of the first of them and a contact sheet of
        these; the number of large cars and trucks in all images, and how many were missed.
    """
    from eseg_d2 import Predictor  # before Detectron2, whose import alone warns

    predictor = Predictor(run_folder / "config.yaml", run_folder / "model_final.pth")

    from detectron2.data import DatasetCatalog, MetadataCatalog
    from PIL import Image
    from tqdm import tqdm

    from eseg_d2.data.images import read_image
    from eseg_d2.data.panoptic_png import read_panoptic_png
    from eseg_d2.visualization import contact_sheet, draw_panoptic, side_by_side
    from eseg_d2.visualization.panels import resize

    name = predictor.cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(name)
    paths, rows, large, missed = [], [], 0, 0
    records = DatasetCatalog.get(name)
    shutil.copy(records[0]["file_name"], output / "street.png")  # to try the other commands on
    for record in tqdm(records, desc="pictures"):
        image = read_image(record["file_name"], "RGB")
        prediction = predictor(image[:, :, ::-1])
        truth = read_panoptic_png(record["pan_seg_file_name"])
        vehicles = large_vehicles(record["segments_info"], predictor.classes.names)
        large += len(vehicles)
        missed += sum(
            not is_found(truth == v["id"], v["category_id"], prediction) for v in vehicles
        )
        if len(rows) == num_pictures:
            continue
        panels = {
            "input": resize(image, 640),
            "ground truth": draw_panoptic(image, truth, record["segments_info"], metadata),
            "prediction": resize(prediction.draw(), 640),
        }
        rows.append(side_by_side(panels))
        paths.append(output / f"{record['image_id']}.png")
        Image.fromarray(rows[-1]).save(paths[-1])
    paths.append(output / "contact_sheet.png")
    Image.fromarray(contact_sheet(rows)).save(paths[-1])
    return paths, large, missed


def large_vehicles(segments: list[dict], names: tuple[str, ...]) -> list[dict]:
    """Return the cars and trucks of more than LARGE pixels' height, without crowds."""
    vehicles = [s for s in segments if names[s["category_id"]] in ("car", "truck")]
    return [s for s in vehicles if s["bbox"][3] > LARGE and not s["iscrowd"]]


def is_found(mask, category_id: int, prediction) -> bool:
    """Tell whether a predicted segment of the class has an IoU of more than 0.5 with a mask."""
    same = (prediction.mask(s) for s in prediction.segments if s["class_id"] == category_id)
    return any((mask & other).sum() > 0.5 * (mask | other).sum() for other in same)


def print_metrics(path: Path) -> None:
    results = json.loads(path.read_text())
    shown = {
        "panoptic_seg": ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"),
        "sem_seg": ("mIoU",),
        "bbox": ("AP",),
        "segm": ("AP",),
    }
    print("\nOn the unseen scenes (percent):")
    for task, figures in shown.items():
        values = (results[task][figure] for figure in figures)
        numbers = ("none" if v is None else f"{v:.1f}" for v in values)
        row = "  ".join(f"{f} {n}" for f, n in zip(figures, numbers, strict=True))
        print(f"  {task:13} {row}")


def main() -> None:
    args = parse_arguments()
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    root = Path(os.environ.setdefault("DETECTRON2_DATASETS", str(ROOT / "datasets"))).resolve()
    os.environ["DETECTRON2_DATASETS"] = str(root)
    make_scenes(root / "street_scenes" / "cityscapes", args)
    run_folder = output / "run"
    train(run_folder, args)
    paths, large, missed = predict(run_folder, output, args.num_pictures)
    print_metrics(run_folder / "results.json")
    print(f"\n{missed} of {large} cars and trucks of more than {LARGE} pixels' height are missed.")
    print("\nPictures (input | ground truth | prediction):")
    for path in paths:
        print(f"  {path}")


if __name__ == "__main__":
    main()
