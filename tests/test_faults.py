"""Faults while train_net.py runs: it names them, loses nothing and exits with an error."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from commands import ended, python, started
from PIL import Image
from runs import SMALL_MODEL, VAL, assert_same_run, error_message, metrics

CONFIG = ("--config-file", "configs/scenes/rsp_semantic_R50.yaml")
OPTIONS = (
    *SMALL_MODEL,
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "9", "SOLVER.CHECKPOINT_PERIOD", "3"),
    *("DATALOADER.NUM_WORKERS", "1", "INPUT.MIN_SIZE_TRAIN", "(32,)", "DATASETS.TEST", "()"),
    *("DATASETS.QUICK_CHECK", "False", "LOGGING.PERIOD", "1"),
)


@pytest.fixture
def data(scenes, tmp_path):
    """Copy the scenes, so that a test may damage them; return the folder in Cityscapes' format."""
    shutil.copytree(scenes / "street_scenes", tmp_path / "data" / "street_scenes")
    return tmp_path / "data" / "street_scenes" / "cityscapes"


def words(output, *overrides, flags=()):
    return ["train_net.py", *CONFIG, *flags, *OPTIONS, "OUTPUT_DIR", output, *overrides]


def train(root, output, *overrides, data=None, flags=()):
    environment = {"DETECTRON2_DATASETS": data.parent.parent} if data else {}
    return python(*words(output, *overrides, flags=flags), cwd=root, **environment)


@pytest.fixture
def endless(root, scenes, tmp_path, request):
    """Start a run in tmp_path/"run" that never ends by itself; wait for its first checkpoint."""
    output = tmp_path / "run"
    options = ("SOLVER.MAX_ITER", 1000000, *getattr(request, "param", ()))
    with started(*words(output, *options), cwd=root, output=tmp_path) as process:
        while not (output / "last_checkpoint").exists():
            assert process.is_alive(), (tmp_path / "err").read_text()
            time.sleep(0.05)
        yield process


def break_image(path, how):
    content = path.read_bytes()
    if how == "zero-byte":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "missing":
        path.unlink()
    elif how == "other size":
        Image.new("RGB", (30, 20)).save(path)


def files(data):
    images = sorted(data.glob("leftImg8bit/train/*/*.png"))
    labels = sorted(data.glob("gtFine/cityscapes_panoptic_train/*.png"))
    assert len(images) == len(labels) == 12
    return images, labels


def test_bad_files_are_named_and_replaced_up_to_the_limit(root, data, tmp_path):
    images, labels = files(data)
    for path, how in (images[0], "zero-byte"), (images[3], "truncated"), (images[5], "missing"):
        break_image(path, how)
    for path, how in (labels[7], "zero-byte"), (labels[8], "truncated"), (labels[9], "other size"):
        break_image(path, how)
    process = train(root, tmp_path / "run", data=data)
    assert process.returncode == 0, process.stderr[-3000:]
    log = (tmp_path / "run" / "log.txt").read_text()
    for path in images[0], images[3], images[5], labels[7], labels[8], labels[9]:
        assert str(path) in log, path
    assert "Bad sample 6 (DATALOADER.MAX_BAD_SAMPLES is 10)" in log and "Bad sample 7" not in log

    process = train(root, tmp_path / "few", "DATALOADER.MAX_BAD_SAMPLES", 2, data=data)
    message = error_message(process)
    assert "3 samples cannot be used, but DATALOADER.MAX_BAD_SAMPLES is 2" in message
    assert sum(str(path) in message for path in [*images, *labels]) >= 3


def test_segment_id_missing_in_the_json_ends_the_run(root, data, tmp_path):
    _, labels = files(data)
    for path in labels:
        pixels = Image.open(path).convert("RGB")
        pixels.putpixel((3, 3), (9, 8, 7))
        pixels.save(path)
    message = error_message(train(root, tmp_path / "run", data=data))
    assert str(labels[0].parent) in message and str(9 + 256 * 8 + 65536 * 7) in message
    assert "check_dataset.py" in message


def test_broken_image_in_evaluation_is_named(root, data, tmp_path):
    image = sorted(data.glob("leftImg8bit/val/*/*.png"))[2]
    break_image(image, "truncated")
    message = error_message(train(root, tmp_path / "run", *VAL, "SOLVER.MAX_ITER", 2, data=data))
    assert str(image) in message
    assert (tmp_path / "run" / "model_final.pth").exists()


def test_full_disk_is_named_and_nothing_is_lost(root, scenes, tmp_path, mount):
    reference = tmp_path / "reference"
    assert train(root, reference).returncode == 0
    size = (reference / "model_0000002.pth").stat().st_size
    disk = mount(f"size={int(1.4 * size) // 1024 + 150}k")
    message = error_message(train(root, disk))
    assert re.search(r"model_0000005.pth (is not|cannot be) written: .*MiB", message), message
    assert "needs" in message and "left" in message
    assert f"The last checkpoint is {disk}/model_0000002.pth" in message
    assert (disk / "last_checkpoint").read_text() == "model_0000002.pth"
    assert not list(disk.glob("*.partial"))

    mount(f"remount,size={8 * size}", disk)
    resumed = train(root, disk, flags=("--resume",))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert_same_run(disk, reference)
    assert len(metrics(disk)) == 9


def test_read_only_output_dir_is_named(root, scenes, mount):
    disk = mount("ro")
    message = error_message(train(root, disk / "run"))
    assert f"cannot write into OUTPUT_DIR '{disk}/run': Read-only file system" in message


def test_weights_of_another_model_are_refused_before_data_is_read(root, data, tmp_path):
    assert train(root, tmp_path / "run", "SOLVER.MAX_ITER", 1).returncode == 0
    weights = ("MODEL.WEIGHTS", tmp_path / "run" / "model_final.pth")
    for path in files(data)[0]:
        break_image(path, "zero-byte")
    process = train(root, tmp_path / "other", *weights, "MODEL.RESNETS.DEPTH", 101, data=data)
    assert "lacks" in error_message(process) and "MODEL.RESNETS.DEPTH" in error_message(process)
    evaluation = (*weights, *VAL, "MODEL.BIFPN.OUT_CHANNELS", 16)
    process = train(root, tmp_path / "other", *evaluation, data=data, flags=("--eval-only",))
    assert "the weights do not belong to this model" in error_message(process)


def test_output_dir_belongs_to_one_run_at_a_time(root, endless, tmp_path):
    """The first run is not disturbed; once its data worker is killed, it can be resumed."""
    output = tmp_path / "run"
    config = (output / "config.yaml").read_bytes()
    message = error_message(train(root, output, "SOLVER.BASE_LR", 0.5, flags=("--resume",)))
    assert f"OUTPUT_DIR '{output}' is in use by process {endless.pid} on" in message
    assert (output / "config.yaml").read_bytes() == config and endless.is_alive()

    children = ["pgrep", "-P", str(endless.pid)]
    worker = int(subprocess.run(children, capture_output=True, check=True).stdout.split()[0])
    os.kill(worker, signal.SIGKILL)
    message = error_message(ended(endless, tmp_path))
    assert f"data worker {worker} was killed by SIGKILL" in message and "NUM_WORKERS" in message

    message = error_message(train(root, output))
    assert f"OUTPUT_DIR '{output}' holds checkpoints of an earlier run" in message
    done = int((output / "last_checkpoint").read_text()[6:13]) + 1
    resumed = train(root, output, "SOLVER.MAX_ITER", done + 1, flags=("--resume",))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert list(metrics(output)) == list(range(done + 1))


@pytest.mark.parametrize("endless", [("LOGGING.PERIOD", 1000000)], indirect=True)
def test_deleted_output_dir_loses_no_weights(root, endless, tmp_path):
    output = tmp_path / "run"
    output.rename(tmp_path / "away")
    message = error_message(ended(endless, tmp_path))
    assert f"OUTPUT_DIR '{output}' was deleted during the run" in message
    name = (output / "last_checkpoint").read_text()
    assert str(output / name) in message
    done = int(name[6:13]) + 1
    resumed = train(root, output, "SOLVER.MAX_ITER", done + 1, flags=("--resume",))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
