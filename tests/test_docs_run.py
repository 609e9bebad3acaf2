"""Commands of README and docs, typed into a checkout with small scenes and a small model."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from test_docs import ALL, ROOT, words_of

IGNORED = shutil.ignore_patterns(".*", "__pycache__", "output", "*.egg-info", "street_scenes")
SMALL = (
    *("SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "INPUT.MIN_SIZE_TRAIN", "(64,)"),
    *("INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
)
RUN = "output/demo/run"
# What the commands call the reader's own
OWN = {
    "configs/scenes/rsp_panoptic_R18_cityscapes.yaml": f"{RUN}/config.yaml",
    "DIR": "output/exported",
    "OUTPUT_DIR": RUN,
    "1024x2048": "256x512",
}


def chosen(command: str) -> bool:
    """Those of the tools and demos that end by themselves; others have tests of their own."""
    scripts = r"demo/demo\.py|make_video|draw_relation|report\.py|browse_dataset|check_dataset"
    scripts += r"|export_model|analyze_model|--eval-only MODEL.WEIGHTS model_final"
    return bool(re.search(scripts, command)) and "mine.yaml" not in command


COMMANDS = [(page, command) for page, command in ALL if chosen(command)]


def run(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    del environment["DETECTRON2_DATASETS"]  # as for a reader: ./datasets
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def checkout(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "checkout"
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    shutil.copytree(scenes / "street_scenes", folder / "datasets" / "street_scenes")
    config = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"
    process = run(folder, "train_net.py", "--config-file", config, *SMALL, "OUTPUT_DIR", RUN)
    assert process.returncode == 0, process.stderr[-3000:]
    for name in "scenes_cityscapes", "scenes_coco":
        shutil.copytree(folder / RUN, folder / "output" / name)
    shutil.copy(folder / RUN / "model_final.pth", folder)
    image = next((folder / "datasets/street_scenes/cityscapes/leftImg8bit/val").rglob("*.png"))
    for name in "image.png", "street.png", "photos/a.png", "more/b.png":
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, folder / name)
    towns = folder / "datasets/street_scenes/cityscapes/leftImg8bit/val"
    if not (towns / "tannenburg").exists():
        shutil.copytree(next(towns.iterdir()), towns / "tannenburg")
    for video in "output/street.mp4", "drive.mp4":
        made = run(folder, "demo/make_video.py", "--output", video, "--frames", "4")
        assert made.returncode == 0, made.stderr[-2000:]
    return folder


@pytest.mark.parametrize(
    "page, command", COMMANDS, ids=[f"{page.name}: {command[:70]}" for page, command in COMMANDS]
)
def test_command_does_what_it_says(page, command, checkout):
    words = [OWN.get(word, word) for word in words_of(command)]
    process = run(checkout, *words)
    assert process.returncode == 0, process.stdout[-1500:] + process.stderr[-3000:]
    for option in "--output", "--html", "--json":
        if option in words:
            assert (checkout / words[words.index(option) + 1]).exists()
