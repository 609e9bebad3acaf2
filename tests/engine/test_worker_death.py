"""A killed data worker ends the run with one sentence, whatever the run was doing."""

import multiprocessing
import os
import signal
from multiprocessing.connection import wait

import pytest
import torch
from runs import make_trainer

from eseg_d2.engine import find_checkpoints
from eseg_d2.utils.errors import RunError

AT = 3  # the iteration of the kill


OPTIONS = (
    *("DATALOADER.NUM_WORKERS", "2", "DATALOADER.PREFETCH", "1"),
    *("SOLVER.MAX_ITER", "200", "SOLVER.CHECKPOINT_PERIOD", "1"),
)


def kill_a_worker(trainer):
    if trainer.iter != AT:
        return
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
    trainer.model.register_forward_pre_hook(lambda *_: kill_a_worker(trainer))


def kill_in_backward(trainer, monkeypatch):
    trainer.model.sem_seg_head.predictor.weight.register_hook(lambda _: kill_a_worker(trainer))


def kill_while_a_checkpoint_is_written(trainer, monkeypatch):
    save = torch.save

    def killing(content, file):
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
    scenes, tmp_path, package_log, monkeypatch, kill
):
    trainer = make_trainer(tmp_path, *OPTIONS)
    trainer.others = multiprocessing.active_children()  # which an earlier test may have left
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
    assert make_trainer(tmp_path, *OPTIONS, resume=True).start_iter == expected + 1
