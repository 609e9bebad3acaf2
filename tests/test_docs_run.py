"""Run the commands and code of README and docs in a checkout with small scenes and models."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from runs import SHORT
from test_docs import ALL, PAGES, ROOT, commands_of, words_of

IGNORED = shutil.ignore_patterns(".*", "__pycache__", "output", "*.egg-info", "street_scenes")
SMALL = (*SHORT, "SOLVER.MAX_ITER", "2")
RUN = "output/demo/run"
# Replaces the reader's own files and folders
OWN = {
    "configs/scenes/rsp_panoptic_R18_cityscapes.yaml": f"{RUN}/config.yaml",
    "DIR": "output/exported",
    "OUTPUT_DIR": RUN,
    "1024x2048": "256x512",
}


def chosen(command: str) -> bool:
    """Select the tools and demos that end by themselves; the others have their own tests."""
    scripts = r"demo/demo\.py|make_video|draw_relation|report\.py|browse_dataset|check_dataset"
    scripts += r"|export_model|analyze_model|--eval-only MODEL.WEIGHTS model_final"
    builds_on_others = "mine.yaml" in command or "eseg_lite_s" in command
    return bool(re.search(scripts, command)) and not builds_on_others


pytestmark = pytest.mark.slow
COMMANDS = [(page, command) for page, command in ALL if chosen(command)]


def run(folder, *words, path: str = ""):
    """Run ``python WORDS`` in a checkout; ``path`` is another folder to import from."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{path}", "OMP_NUM_THREADS": "1"}
    del environment["DETECTRON2_DATASETS"]  # like a reader, use ./datasets
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
    shutil.copy(image, folder / "image.png")
    with Image.open(image) as scene:  # at the size of the scenes of `make demo`
        scene.resize((384, 192)).save(folder / "output/demo/street.png")
    towns = folder / "datasets/street_scenes/cityscapes/leftImg8bit/val"
    if not (towns / "tannenburg").exists():
        shutil.copytree(next(towns.iterdir()), towns / "tannenburg")
    made = run(folder, "demo/make_video.py", "--output", "output/street.mp4", "--frames", "4")
    assert made.returncode == 0, made.stderr[-2000:]
    return folder


# Warnings of Python, and those in OpenCV's log
WARNING = re.compile(r"\w*Warning: |^\[ *(?:WARN|ERROR):", re.M)


@pytest.mark.parametrize(
    "page, command", COMMANDS, ids=[f"{page.name}: {command[:70]}" for page, command in COMMANDS]
)
def test_commands_run_without_warnings_and_write_their_files(page, command, checkout):
    words = [OWN.get(word, word) for word in words_of(command)]
    process = run(checkout, *words)
    assert process.returncode == 0, process.stdout[-1500:] + process.stderr[-3000:]
    assert not WARNING.search(process.stderr), process.stderr[-3000:]
    for option in "--output", "--html", "--json":
        if option in words:
            assert (checkout / words[words.index(option) + 1]).exists()


def python_of(page) -> str:
    """Join the Python blocks of a page, since a reader types them one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


# The code of data.md needs the output of its commands: tests/test_own_data.py runs both
WITH_CODE = [page for page in PAGES if python_of(page) and page.name != "data.md"]
BUILT_ON = ("SOLVER.MAX_ITER", "--format onnx", "convert_weights.py output")


@pytest.mark.parametrize("page", WITH_CODE, ids=[page.name for page in WITH_CODE])
def test_code_runs_as_printed(page, checkout):
    """The commands that the code builds on are run first; trainings are shortened."""
    for command in commands_of(page):
        if any(word in command for word in BUILT_ON):
            process = run(checkout, *words_of(command.replace("MAX_ITER 20", "MAX_ITER 1")))
            assert process.returncode == 0, process.stderr[-3000:]
    code = python_of(page).replace('"SOLVER.MAX_ITER", "100"', '"SOLVER.MAX_ITER", "2"')
    process = run(checkout, "-c", code, path=str(ROOT / "tests/stand_ins"))
    assert process.returncode == 0, process.stdout[-1500:] + process.stderr[-3000:]
    for name in re.findall(r"(?:save|imwrite)\(\"(.+?)\"", code):
        assert (checkout / name).stat().st_size > 0
