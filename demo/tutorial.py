#!/usr/bin/env python3
"""Tutorial: from nothing to a trained panoptic model, with pictures on the way.

    python demo/tutorial.py --output output/tutorial

or cell by cell in an editor that knows "# %%", or as a notebook by `jupytext --to ipynb`. It takes
as long as the training of `make demo`; `--iterations 100` is a quick look.
"""

# %% What may be set
import argparse
from pathlib import Path

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--output", type=Path, default=Path("output/tutorial"), help="a folder")
parser.add_argument("--iterations", type=int, default=850, help="of the training; default 850")
parser.add_argument("--num-train", type=int, default=600, help="scenes; default 600")
parser.add_argument("--num-val", type=int, default=30, help="unseen scenes; default 30")
parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
args, root = parser.parse_args(), Path(__file__).resolve().parent.parent
args.output.mkdir(parents=True, exist_ok=True)

import numpy as np  # after --help: these take seconds
from detectron2.utils.logger import setup_logger
from PIL import Image

setup_logger(name="eseg_d2")


def show(name: str, picture: np.ndarray) -> None:
    """Write a picture, and say where."""
    path = args.output / f"{name}.png"
    Image.fromarray(picture).save(path)
    print(f"--> {path}")


# %% 1. Data: images, pngs of segment ids, a json; the COCO panoptic format
from eseg_d2.apps.scenes import generate_street_scenes

data = args.output / "scenes"
counts = {"num_train": args.num_train, "num_val": args.num_val}
generate_street_scenes(data, format="coco", **counts, size=(192, 384), seed=1)

# %% 2. Configuration: a recipe of the repository, and our data set under names of our own
from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2.engine import load_config

entries = [
    {
        "name": f"tutorial_{split}",
        "images": str(data / f"{split}2017"),
        "panoptic_png": str(data / f"panoptic_{split}2017"),
        "panoptic_json": str(data / "annotations" / f"panoptic_{split}2017.json"),
    }
    for split in ("train", "val")
]
options = {
    "DATASETS.PANOPTIC": entries,
    "DATASETS.TRAIN": ("tutorial_train",),
    "DATASETS.TEST": ("tutorial_val",),
    "SOLVER.MAX_ITER": args.iterations,
    "OUTPUT_DIR": str(args.output / "run"),
}
words = [str(word) for item in options.items() for word in item]
cfg = load_config(str(root / "configs/scenes/Base-Scenes-Panoptic.yaml"), [*words, *args.opts])
metadata = MetadataCatalog.get("tutorial_val")
print("Classes:", ", ".join(metadata.stuff_classes))

# %% 3. Look at the data before training on it
from eseg_d2.apps.doctor import quick_check
from eseg_d2.data.images import read_image
from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.visualization import contact_sheet, draw_panoptic, side_by_side
from eseg_d2.visualization.panels import resize

quick_check(cfg, eval_only=False)
records = DatasetCatalog.get("tutorial_val")


def truth_of(record: dict) -> dict[str, np.ndarray]:
    image = read_image(record["file_name"], "RGB")
    segments = read_panoptic_png(record["pan_seg_file_name"])
    drawn = draw_panoptic(image, segments, record["segments_info"], metadata)
    return {"input": resize(image, 640), "ground truth": drawn}


show("1_data", contact_sheet([side_by_side(truth_of(record)) for record in records[:4]]))

# %% 4. Train. An interrupted cell continues where it was.
from eseg_d2.engine import Trainer, write_results

Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
(Path(cfg.OUTPUT_DIR) / "config.yaml").write_text(cfg.dump())  # as train_net.py does
trainer = Trainer(cfg)
trainer.resume_or_load(resume=True)
trainer.train()

# %% 5. Evaluate: PQ of segments, mIoU of pixels, AP of masks
results = trainer.last_results or Trainer.test(cfg, trainer.evaluated_model)
write_results(results, str(args.output / "results.json"))
print(f"PQ {results['panoptic_seg']['PQ']:.1f}, mIoU {results['sem_seg']['mIoU']:.1f}")

# %% 6. Predict, beside the truth
from eseg_d2 import Predictor

cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
predictor = Predictor.from_config(cfg)
rows = []
for record in records[:6]:
    image = read_image(record["file_name"], "BGR")
    drawn = resize(predictor(image).draw(), 640)
    rows.append(side_by_side({**truth_of(record), "prediction": drawn}))
show("2_predictions", contact_sheet(rows))

# %% 7. Where a pixel takes its context from: the relation that RSP learns, level by level
from eseg_d2.visualization import relation

image = read_image(records[0]["file_name"], "BGR")
pixel = int(image.shape[0] * 0.7), image.shape[1] // 3
weights, seen = relation.image_relation_weights(predictor, image)
stride = relation.find_rsp_head(predictor.model).common_stride
maps, strides = relation.pixel_context(list(weights.values()), pixel, image.shape[:2], seen, stride)
path = args.output / "3_context.png"
relation.draw_context(image[:, :, ::-1], pixel, maps, strides, seen, path)
print(f"--> {path}")

# %% 8. What next
print(
    f"""
A page about this run:   python tools/report.py --run {cfg.OUTPUT_DIR}
Your own data:           docs/data.md
Training in earnest:     docs/train.md
"""
)
