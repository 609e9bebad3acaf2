"""A weights file and its card, packed from a short run."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
from commands import python
from runs import SHORT

from eseg_d2.apps.cards import pack_run

CONFIG = "configs/scenes/rsp_semantic_R50.yaml"


def pack(run, target, examples):
    options = {"test_set": "scenes_cityscapes_panoptic_val", "use": "for tests"}
    return pack_run(run, target, config_file=CONFIG, examples=examples, **options)


@pytest.mark.slow
def test_run_is_packed_into_weights_and_a_card(root, scenes, tmp_path):
    run, target = tmp_path / "run", tmp_path / "small.safetensors"
    words = ("--config-file", CONFIG, *SHORT, "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", run)
    done = python("train_net.py", *words, cwd=root)
    assert done.returncode == 0, done.stderr
    card = pack(run, target, root / "demo" / "images")
    assert card == json.loads((tmp_path / "small.json").read_text())
    assert card["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert card["data"] == {"scenes_cityscapes_panoptic_train": 12}
    assert card["recipe"]["iterations"] == 2 and ".../run" in card["recipe"]["command"]
    trained = json.loads((run / "results.json").read_text())["sem_seg"]["mIoU"]
    assert card["metrics"]["sem_seg"]["mIoU"] == pytest.approx(trained, abs=0.5)
    weights = safetensors.torch.load_file(target)
    kinds = {(tensor.ndim > 1, tensor.dtype) for tensor in weights.values()}
    assert kinds >= {(True, torch.float16), (False, torch.float32)}
    assert (True, torch.float32) not in kinds


def test_unfinished_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        pack(tmp_path, tmp_path / "a.safetensors", tmp_path)
