"""train_net.py as a user runs it: training, evaluation, resuming and errors."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from commands import python
from runs import SHORT, error_message, metrics

SMALL = (*SHORT, "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.WARMUP_ITERS", "2")


def train_net(root, *arguments, **environment):
    return python("train_net.py", *arguments, cwd=root, **environment)


@pytest.mark.parametrize("kind", ["cityscapes", "coco"])
def test_train_resume_and_eval_only(root, scenes, tmp_path, kind):
    config = ("--config-file", f"configs/scenes/rsp_panoptic_R18_{kind}.yaml")
    out = tmp_path / "run"
    settings = (*SMALL, "OUTPUT_DIR", out)

    first = train_net(root, *config, *settings, "SOLVER.MAX_ITER", "6")
    assert first.returncode == 0, first.stderr[-3000:]
    log = (out / "log.txt").read_text()
    for name in "config.yaml", "model_final.pth", "last_checkpoint", "model_0000003.pth":
        assert (out / name).is_file(), name
    assert list(out.glob("events.out.tfevents.*"))
    assert "runs on the CPU" in log or "cuda" in log
    results = json.loads((out / "results.json").read_text())
    panoptic = {f + s for f in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")}
    assert set(results["panoptic_seg"]) == panoptic
    assert "mIoU" in results["sem_seg"]
    assert "AP" in results["bbox"] and "AP" in results["segm"]
    assert results["sem_seg"]["mIoU"] > 0

    evaluated = train_net(
        root, *config, "--eval-only", *SMALL, "MODEL.WEIGHTS", out / "model_final.pth",
        "OUTPUT_DIR", tmp_path / "evaluated",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    assert json.loads((tmp_path / "evaluated" / "results.json").read_text()) == results
    for figure in "PQ", "SQ", "RQ", "mIoU", "AP":
        assert figure in evaluated.stdout

    # as if the run had been stopped after the checkpoint of iteration 3
    (out / "last_checkpoint").write_text("model_0000003.pth")
    resumed = train_net(root, *config, "--resume", *settings, "SOLVER.MAX_ITER", "8")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "Starting training from iteration 4" in resumed.stdout
    assert max(i for i, line in metrics(out).items() if "total_loss" in line) == 7


def test_semantic_model_with_every_kind_of_evaluation(root, scenes, tmp_path):
    """Official scores, prediction files and test-time augmentation are enabled by their keys."""
    process = train_net(
        root, "--config-file", "configs/scenes/eseg_lite_s.yaml", *SMALL, "SOLVER.MAX_ITER", "2",
        "TEST.OFFICIAL_CITYSCAPES", "True", "TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES",
        "(48, 64)", "INPUT.MIN_SIZE_TRAIN", "(64, 64)", "OUTPUT_DIR", tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["cityscapes"]["IoU"] == pytest.approx(results["sem_seg"]["mIoU"], abs=1e-3)
    averaged = json.loads((tmp_path / "TTA" / "results.json").read_text())
    assert averaged["sem_seg"].keys() == results["sem_seg"].keys()
    assert averaged["sem_seg"] != results["sem_seg"]
    folder = tmp_path / "inference" / "predictions" / "scenes_cityscapes_panoptic_val" / "semantic"
    assert len(list(folder.glob("*.png"))) == 4


def test_cityscapes_config_trains_on_data_in_the_layout_of_cityscapes(root, scenes, tmp_path):
    """Only the sizes, the weights and the number of iterations are changed."""
    (tmp_path / "cityscapes").symlink_to(scenes / "street_scenes" / "cityscapes")
    process = train_net(
        root, "--config-file", "configs/cityscapes/rsp_panoptic_R50.yaml", *SMALL,
        "MODEL.WEIGHTS", "", "INPUT.CROP.SIZE", "(64, 64)", "INPUT.MAX_SIZE_TEST", "128",
        "SOLVER.IMS_PER_BATCH", "1", "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", tmp_path / "o",
        DETECTRON2_DATASETS=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert {"PQ", "PQ_th", "PQ_st"} <= results["panoptic_seg"].keys()
    assert results["sem_seg"].keys() >= {"mIoU", "IoU-road", "IoU-bicycle"}


def test_broken_data_set_is_reported_before_training(root, scenes, tmp_path):
    shutil.copytree(scenes / "street_scenes" / "coco", tmp_path / "street_scenes" / "coco")
    png = next((tmp_path / "street_scenes" / "coco" / "panoptic_train2017").glob("*.png"))
    png.write_bytes(png.read_bytes()[:-40])
    command = ["--config-file", "configs/scenes/rsp_panoptic_R18_coco.yaml", *SMALL]
    command += ["SOLVER.MAX_ITER", "1", "OUTPUT_DIR", tmp_path / "o"]
    process = train_net(root, *command, DETECTRON2_DATASETS=tmp_path)
    message = error_message(process)
    assert "png-unreadable" in message and png.name in message
    assert "DATASETS.QUICK_CHECK False" in message and not (tmp_path / "o").exists()


def test_missing_coco_is_a_error_message(root, tmp_path):
    process = train_net(
        root, "--config-file", "configs/rsp_panoptic_R50.yaml", "OUTPUT_DIR", tmp_path / "o",
        DETECTRON2_DATASETS=tmp_path,
    )  # fmt: skip
    message = error_message(process)
    assert str(tmp_path / "coco" / "annotations" / "panoptic_train2017.json") in message
    assert "DETECTRON2_DATASETS" in message
    assert not (tmp_path / "o").exists()


def test_error_for_missing_scenes_gives_a_command_that_works(root, tmp_path):
    config = "configs/scenes/rsp_panoptic_R18_coco.yaml"
    process = train_net(root, "--config-file", config, DETECTRON2_DATASETS=tmp_path)
    message = error_message(process)
    command = re.search(r"python (datasets/make_street_scenes.py .*)", message).group(1)
    command = re.sub(r"--num-train \d+ --num-val \d+", "--num-train 2 --num-val 1", command)
    made = python(*command.split(), cwd=root)
    assert made.returncode == 0, made.stderr[-3000:]
    process = train_net(
        root, "--config-file", config, *SMALL, "OUTPUT_DIR", tmp_path / "run",
        "SOLVER.MAX_ITER", "1", DETECTRON2_DATASETS=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]


def test_usage_needs_no_detectron2(root):
    """Importing it takes seconds, which --help and wrong flags must not cost."""
    code = "import sys; sys.modules['detectron2'] = sys.modules['torch'] = None; "
    code += "sys.argv = ['train_net.py', '--help']; import train_net; train_net.main()"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0 and "--config-file" in process.stdout
