"""A killed data worker ends the run with one sentence, whatever the run was doing."""

import multiprocessing
import os
import signal
from multiprocessing.connection import wait

import pytest
import torch
from runs import SMALL_MODEL, TINY

from eseg_d2.engine import Trainer, find_checkpoints, load_config
from eseg_d2.utils.errors import RunError

AT = 3  # the iteration of the kill


def make_trainer(root, output, *overrides):
    options = [*SMALL_MODEL, *TINY, "DATALOADER.NUM_WORKERS", "2", "OUTPUT_DIR", str(output)]
    options += ["SOLVER.MAX_ITER", "200", "SOLVER.CHECKPOINT_PERIOD", "1"]
    options += ["DATALOADER.PREFETCH", "1", *overrides]
    trainer = Trainer(load_config(str(root / "configs/scenes/rsp_semantic_R50.yaml"), options))
    trainer.others = multiprocessing.active_children()  # which an earlier test may have left
    return trainer


def kill_a_worker(trainer):
    worker = next(c for c in multiprocessing.active_children() if c not in trainer.others)
    os.kill(worker.pid, signal.SIGKILL)
    wait([worker.sentinel])
    worker.join()


class KilledAt:
    """A mapper that kills its own worker after a number of calls."""

    def __init__(self, mapper, calls):
        self._mapper, self._calls = mapper, calls

    def __call__(self, image):
        self._calls -= 1
        if self._calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._mapper(image)


def kill_in_forward(trainer, monkeypatch):
    def hook(module, given):
        if trainer.iter == AT:
            kill_a_worker(trainer)

    trainer.model.register_forward_pre_hook(hook)


def kill_in_backward(trainer, monkeypatch):
    def hook(gradient):
        if trainer.iter == AT:
            kill_a_worker(trainer)

    trainer.model.sem_seg_head.predictor.weight.register_hook(hook)


def kill_while_a_checkpoint_is_written(trainer, monkeypatch):
    save = torch.save

    def killing(content, file):
        if trainer.iter == AT:
            kill_a_worker(trainer)
        save(content, file)

    monkeypatch.setattr(torch, "save", killing)


def kill_while_loading(trainer, monkeypatch):
    samples = trainer._loader._samples
    samples._mapper = KilledAt(samples._mapper, calls=AT)


@pytest.mark.parametrize(
    "kill",
    [kill_in_forward, kill_in_backward, kill_while_a_checkpoint_is_written, kill_while_loading],
)
def test_killed_worker_ends_the_run_with_one_sentence(
    root, scenes, tmp_path, package_log, monkeypatch, kill
):
    trainer = make_trainer(root, tmp_path)
    trainer.resume_or_load(resume=False)
    kill(trainer, monkeypatch)
    with pytest.raises(RunError) as error:
        trainer.train()
    message = str(error.value)
    assert "was killed by SIGKILL" in message and "--resume" in message
    assert "DATALOADER.NUM_WORKERS (now 2" in message and "shm" in message
    assert "disk" not in message and "Exception during training" not in package_log.text
    # the current update is completed and saved
    expected = trainer.iter - 1
    assert expected >= AT or kill is kill_while_loading
    newest = find_checkpoints(str(tmp_path))[0]
    assert newest.endswith(f"model_{expected:07d}.pth")
    resumed = make_trainer(root, tmp_path)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == expected + 1
