"""Checkpoints on disk: failed writes, damaged files, the order and the number that is kept."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from eseg_d2.engine.checkpoint import SafeCheckpointer, find_checkpoints
from eseg_d2.engine.hooks import CheckpointHook
from eseg_d2.utils.errors import RunError


class State:
    """A stand-in for the trainer."""

    def __init__(self, number=0):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def make_checkpointer(folder, value=1.0, size=100, state=None):
    model = nn.Linear(size, 1)
    nn.init.constant_(model.weight, value)
    return SafeCheckpointer(model, str(folder), trainer=state or State(int(value)))


def names(paths):
    return [os.path.basename(path) for path in paths]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_fails(checkpointer, folder, match):
    """Check that saving fails with a helpful message and changes no file; return the message."""
    before = files(folder)
    with pytest.raises(RunError, match=match) as error:
        checkpointer.save("model_0000002", iteration=2)
    assert str(folder / "model_0000002.pth") in str(error.value)
    assert "--resume" in str(error.value)
    assert files(folder) == before
    return str(error.value)


def test_disk_that_fills_up_during_the_write_is_named(mount):
    """Free space is checked in advance, but other processes may take it meanwhile."""
    folder = mount("size=1m")
    make_checkpointer(folder).save("model_0000001", iteration=1)

    class Large(State):
        def state_dict(self):  # its size is not counted, as it holds no tensors
            return {"text": "x" * 2_000_000}

    checkpointer = make_checkpointer(folder, state=Large())
    assert_fails(
        checkpointer, folder, r"cannot be written: .*needs 0.0 MiB, and the disk has 1.0 MiB left"
    )


def test_read_only_disk_is_named(mount):
    folder = mount("size=1m")
    checkpointer = make_checkpointer(folder)
    checkpointer.save("model_0000001", iteration=1)
    mount("remount,ro", folder)
    message = assert_fails(checkpointer, folder, "Read-only file system")
    assert "The last checkpoint is" in message


def test_checkpoint_is_found_although_its_tag_cannot_be_written(tmp_path):
    checkpointer = make_checkpointer(tmp_path)
    (tmp_path / "last_checkpoint").mkdir()
    with pytest.raises(RunError, match="last_checkpoint cannot be written"):
        checkpointer.save("model_0000001", iteration=1)
    assert names(find_checkpoints(str(tmp_path))) == ["model_0000001.pth"]
    assert not list(tmp_path.glob("*.partial"))


def test_missing_folder_is_created_unless_a_file_is_in_its_place(tmp_path):
    make_checkpointer(tmp_path / "no-folder").save("model_final", iteration=3)
    assert make_checkpointer(tmp_path / "no-folder").resume()["iteration"] == 3
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written: .*There is no checkpoint yet"):
        make_checkpointer(tmp_path / "file").save("model_final")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    make_checkpointer(tmp_path).save("model_0000001", iteration=1)
    checkpointer = make_checkpointer(tmp_path)
    with torch.no_grad():
        checkpointer.model.weight[0, 3] = value
    assert_fails(checkpointer, tmp_path, "weight is not finite.*diverged")
    with pytest.raises(RunError, match="not finite"):
        checkpointer.save_weights("model_best_PQ")


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    checkpointer = make_checkpointer(tmp_path)
    checkpointer.save("model_0000001")
    before = files(tmp_path)
    (tmp_path / "model_0000002.pth.partial").write_bytes(b"PK")
    (tmp_path / "last_checkpoint.partial").write_bytes(b"")
    checkpointer.remove_leftovers()
    assert files(tmp_path) == before
    make_checkpointer(tmp_path / "no-folder").remove_leftovers()


def touch(folder, *names_of_files):
    for moment, name in enumerate(names_of_files):
        (folder / name).touch()
        os.utime(folder / name, (moment, moment))


def test_checkpoints_are_ordered_by_tag_then_time_then_iteration(tmp_path):
    assert find_checkpoints(str(tmp_path / "no-folder")) == []
    assert find_checkpoints(str(tmp_path)) == []
    others = "model_best_PQ.pth", "model_1.pth", "model_0000009.pth.partial", "R-50.pth", "x.txt"
    touch(tmp_path, "model_0000005.pth", "model_final.pth", "model_0000002.pth", *others)
    (tmp_path / "model_0000008.pth").symlink_to(tmp_path / "gone.pth")
    (tmp_path / "model_0000007.pth").mkdir()
    found = ["model_0000002.pth", "model_final.pth", "model_0000005.pth"]
    assert names(find_checkpoints(str(tmp_path))) == found
    tag = tmp_path / "last_checkpoint"
    tag.write_text("model_final.pth\n")
    expected = ["model_final.pth", "model_0000002.pth", "model_0000005.pth"]
    assert names(find_checkpoints(str(tmp_path))) == expected
    # the folder has been moved
    tag.write_text("/elsewhere/model_final.pth")
    assert names(find_checkpoints(str(tmp_path))) == expected
    for content in b"model_0000009.pth", b"model_best_PQ.pth", b"", b"\xff\0", b"../x.pth":
        tag.write_bytes(content)
        assert names(find_checkpoints(str(tmp_path))) == found
    tag.unlink()
    tag.mkdir()
    assert names(find_checkpoints(str(tmp_path))) == found
    for name in found:
        os.utime(tmp_path / name, (1, 1))
    assert names(find_checkpoints(str(tmp_path))) == [found[1], found[2], found[0]]


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"../elsewhere.pth", b"model_0000007.pth"])
def test_tag_that_names_no_checkpoint_is_warned_about(tmp_path, caplog, content):
    make_checkpointer(tmp_path).save("model_0000001", iteration=1)
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert make_checkpointer(tmp_path).resume()["iteration"] == 1
    assert "last_checkpoint names" in caplog.text and "the newest one is used" in caplog.text


def damage(path):
    path.write_bytes(path.read_bytes()[:300])


def weights_only(path):
    torch.save({"model": nn.Linear(100, 1).state_dict()}, path)


@pytest.mark.parametrize("spoil", [damage, weights_only])
def test_resume_falls_back_with_a_warning(tmp_path, caplog, spoil):
    for number in 1, 2, 3:
        make_checkpointer(tmp_path, number).save(f"model_000000{number}", iteration=number)
        os.utime(tmp_path / f"model_000000{number}.pth", (number, number))
    spoil(tmp_path / "model_0000003.pth")
    (tmp_path / "model_0000002.pth").write_bytes(b"")
    checkpointer = make_checkpointer(tmp_path, 9)
    assert checkpointer.resume()["iteration"] == 1
    assert checkpointer.checkpointables["trainer"].number == 1
    messages = [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "WARNING")]
    assert len(messages) == 3
    assert "model_0000003.pth" in messages[0] and "model_0000002.pth" in messages[1]
    assert messages[2] == f"Resuming from {tmp_path / 'model_0000001.pth'}"


def test_resume_without_a_usable_checkpoint_is_refused(tmp_path):
    with pytest.raises(RunError, match="no checkpoint in OUTPUT_DIR.*\n  there is none"):
        make_checkpointer(tmp_path).resume()
    make_checkpointer(tmp_path).save("model_0000001")
    damage(tmp_path / "model_0000001.pth")
    touch(tmp_path, "model_final.pth")
    with pytest.raises(RunError, match="model_0000001.pth(.|\n)*model_final.pth.*it is empty"):
        make_checkpointer(tmp_path).resume()


def run_hook(folder, first, last, *, keep, period=1, final=100):
    hook = CheckpointHook(make_checkpointer(folder), period, keep)
    hook.trainer = trainer = SimpleNamespace(start_iter=first, iter=first, max_iter=final)
    hook.before_train()
    for trainer.iter in range(first, last):
        hook.after_step()


def test_the_last_few_checkpoints_are_kept(tmp_path):
    touch(tmp_path, "model_best_PQ.pth", "R-50.pth", "model_0000900.pth", "notes.txt")
    foreign = set(files(tmp_path))
    run_hook(tmp_path, 0, 6, keep=2)
    last = {"last_checkpoint", "model_0000004.pth", "model_0000005.pth"}
    assert set(files(tmp_path)) == foreign | last
    run_hook(tmp_path, 0, 4, keep=0, period=2)
    assert set(files(tmp_path)) == foreign | last | {"model_0000001.pth", "model_0000003.pth"}


def test_resumed_run_keeps_removing_old_checkpoints(tmp_path):
    run_hook(tmp_path, 0, 4, keep=3)
    (tmp_path / "model_0000001.pth").unlink()  # by the user
    run_hook(tmp_path, 4, 6, keep=3, final=6)
    found = ["model_final.pth", *(f"model_000000{i}.pth" for i in (4, 3, 2))]
    assert sorted(names(find_checkpoints(str(tmp_path)))) == sorted(found)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_period_0_saves_only_at_the_end(tmp_path):
    run_hook(tmp_path, 0, 5, keep=2, period=0, final=5)
    assert names(find_checkpoints(str(tmp_path))) == ["model_final.pth"]


def test_processes_other_than_the_first_write_nothing(tmp_path):
    checkpointer = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path), save_to_disk=False)
    checkpointer.save("model_final")
    checkpointer.save_weights("model_best_PQ")
    checkpointer.remove_leftovers()
    assert not files(tmp_path)
