#!/usr/bin/env python3
"""From a trained panoptic model to one for your own data, with pictures on the way.

    python demo/tutorial.py --output output/tutorial

or cell by cell in an editor that knows "# %%", or as a notebook, tutorial.ipynb. It takes about
five minutes on two cores; `--iterations 50` is a quick look.
"""

# %% [markdown]
# # From a trained panoptic model to one for your own data
# It takes about five minutes on two cores.

# %%
import argparse
import os
import shlex
import sys
from pathlib import Path

IN_NOTEBOOK = "ipykernel" in sys.modules
parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--output", type=Path, default=Path("output/tutorial"), help="a folder")
parser.add_argument("--iterations", type=int, default=200, help="of the training; default 200")
parser.add_argument("--num-train", type=int, default=200, help="scenes; default 200")
parser.add_argument("--num-val", type=int, default=30, help="unseen scenes; default 30")
parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
# In a notebook, arguments can be given by the environment
args = parser.parse_args(shlex.split(os.environ.get("TUTORIAL", "")) if IN_NOTEBOOK else None)
args.output.mkdir(parents=True, exist_ok=True)

import numpy as np  # after --help: these take seconds
from detectron2.utils.logger import setup_logger
from PIL import Image

setup_logger(name="eseg_d2")


def show(name: str, picture: np.ndarray) -> None:
    """Write a picture and say where; a notebook shows it, too."""
    path = args.output / f"{name}.png"
    Image.fromarray(picture).save(path)
    print(f"--> {path}")
    if IN_NOTEBOOK:
        from IPython.display import display

        display(Image.fromarray(picture))


# %% [markdown]
# ## 1. Data
# Images, pngs of segment ids, and a json: the COCO panoptic format. Here the built-in street scenes
# stand in for your own. Their classes are named as COCO names them.

# %%
from eseg_d2.apps.scenes import generate_street_scenes

data = args.output / "scenes"
counts = {"num_train": args.num_train, "num_val": args.num_val}
generate_street_scenes(data, format="coco", **counts, size=(192, 384), seed=1)

# %% [markdown]
# ## 2. A trained model
# `weights/` holds small models. This one was trained on other street scenes, with the classes of
# Cityscapes.

# %%
from eseg_d2 import Predictor
from eseg_d2.visualization import contact_sheet, draw_panoptic, side_by_side
from eseg_d2.visualization.panels import resize

NAME = "scenes_rsp_panoptic"
trained = Predictor.pretrained(NAME)
images = sorted((data / "val2017").glob("*.jpg"))
predictions = [trained(path) for path in images[:2]]
print(predictions[0])
show("1_trained_model", contact_sheet([resize(p.draw(), 640) for p in predictions]))

# %% [markdown]
# ## 3. Configuration
# A recipe of the repository, your data set under names of your own, and the trained model to start
# from. Heads with other classes start anew.

# %%
from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2 import load_config

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
    "MODEL.WEIGHTS": f"eseg_d2://{NAME}",
    "MODEL_EMA.DECAY": 0.98,
    "SOLVER.MAX_ITER": args.iterations,
    "OUTPUT_DIR": str(args.output / "run"),
}
words = [str(word) for item in options.items() for word in item]
cfg = load_config("configs/scenes/Base-Scenes-Panoptic-R50.yaml", [*words, *args.opts])
metadata = MetadataCatalog.get("tutorial_val")
print("Classes:", ", ".join(metadata.stuff_classes))

# %% [markdown]
# ## 4. Look at the data before training on it

# %%
from eseg_d2.apps.doctor import quick_check
from eseg_d2.data.images import read_image
from eseg_d2.data.panoptic_png import read_panoptic_png

quick_check(cfg, eval_only=False)
records = DatasetCatalog.get("tutorial_val")


def truth_of(record: dict) -> dict[str, np.ndarray]:
    image = read_image(record["file_name"], "RGB")
    segments = read_panoptic_png(record["pan_seg_file_name"])
    drawn = draw_panoptic(image, segments, record["segments_info"], metadata)
    return {"input": resize(image, 640), "ground truth": drawn}


show("2_data", contact_sheet([side_by_side(truth_of(record)) for record in records[:4]]))

# %% [markdown]
# ## 5. Train
# An interrupted cell continues where it was.

# %%
from eseg_d2.engine import Trainer, write_results

Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
(Path(cfg.OUTPUT_DIR) / "config.yaml").write_text(cfg.dump())  # as train_net.py does
trainer = Trainer(cfg)
trainer.resume_or_load(resume=True)
trainer.train()

# %% [markdown]
# ## 6. Evaluate
# PQ of segments, mIoU of pixels, AP of boxes and masks.

# %%
results = trainer.last_results or Trainer.test(cfg, trainer.evaluated_model)
write_results(results, str(args.output / "results.json"))
print(f"PQ {results['panoptic_seg']['PQ']:.1f}, mIoU {results['sem_seg']['mIoU']:.1f}")

# %% [markdown]
# ## 7. Predict, beside the truth

# %%
cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
predictor = Predictor.from_config(cfg)
rows = []
for record in records[:6]:
    image = read_image(record["file_name"], "BGR")
    drawn = resize(predictor(image).draw(), 640)
    rows.append(side_by_side({**truth_of(record), "prediction": drawn}))
show("3_predictions", contact_sheet(rows))

# %% [markdown]
# ## 8. Where a pixel takes its context from
# The relation that RSP has learned, level by level.

# %%
from eseg_d2.visualization import relation

image = read_image(records[0]["file_name"], "BGR")
pixel = int(image.shape[0] * 0.7), image.shape[1] // 3
weights, seen = relation.image_relation_weights(predictor, image)
stride = relation.find_rsp(predictor.model).common_stride
maps, strides = relation.pixel_context(list(weights.values()), pixel, image.shape[:2], seen, stride)
relation.draw_context(image[:, :, ::-1], pixel, maps, strides, seen, args.output / "4_context.png")
show("4_context", np.asarray(Image.open(args.output / "4_context.png").convert("RGB")))

# %% [markdown]
# ## 9. What next
# - A page about this run: `python tools/report.py --run output/tutorial/run`
# - Your own data: `docs/data.md`
# - Training in earnest: `docs/train.md`
