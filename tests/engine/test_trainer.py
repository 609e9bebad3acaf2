import json

import torch

import eseg_d2  # noqa: F401, registers
from eseg_d2.engine import Trainer, load_config, write_results


def test_results_are_strict_json(tmp_path):
    path = tmp_path / "results.json"
    results = {"panoptic_seg": {"PQ": 12.5, "PQ_th": float("nan")}, "bbox": {}}
    write_results(results, str(path))
    assert json.loads(path.read_text()) == {
        "panoptic_seg": {"PQ": 12.5, "PQ_th": None},
        "bbox": {},
    }


def test_checkpoints_hold_the_optimizer(root, scenes, tmp_path):
    """0.6 leaves it out: a resumed run would start with no momentum and another LR."""
    cfg = load_config(
        str(root / "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"),
        ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"]
        + ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
        + ["INPUT.MIN_SIZE_TRAIN", "(64,)", "DATASETS.TEST", "()"],
    )
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    saved = torch.load(tmp_path / "model_0000001.pth", weights_only=False)
    assert saved["iteration"] == 1

    resumed = Trainer(cfg)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    state = resumed.optimizer.state_dict()
    expected = saved["trainer"]["_trainer"]["optimizer"]
    assert state["param_groups"][0]["lr"] == expected["param_groups"][0]["lr"]
    momenta = [entry["momentum_buffer"] for entry in state["state"].values()]
    assert momenta and any(m.abs().sum() > 0 for m in momenta)
    for index, entry in expected["state"].items():
        torch.testing.assert_close(
            state["state"][index]["momentum_buffer"], entry["momentum_buffer"]
        )
