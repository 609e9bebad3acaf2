"""What stays on the disk when checkpoints are written, fail to be, or are damaged."""

import os
import subprocess
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from eseg_d2.engine.checkpoint import SafeCheckpointer, find_checkpoints
from eseg_d2.engine.hooks import CheckpointHook
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.files import write_atomically


class State:
    """Stands for the trainer."""

    def __init__(self, number=0):
        self.number = number

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


def checkpointer(folder, value=1.0, size=100, state=None):
    model = nn.Linear(size, 1)
    nn.init.constant_(model.weight, value)
    return SafeCheckpointer(model, str(folder), trainer=state or State(int(value)))


def names(paths):
    return [os.path.basename(path) for path in paths]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a file system of 1 MiB, or mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as e:
            pytest.skip(f"no mount here: {e}")
        if done.returncode:
            pytest.skip(f"mounting is refused: {done.stderr}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def assert_fails(one, folder, match):
    before = files(folder)
    with pytest.raises(RunError, match=match) as error:
        one.save("model_0000002", iteration=2)
    assert str(folder / "model_0000002.pth") in str(error.value)
    assert "--resume" in str(error.value)
    assert files(folder) == before
    return str(error.value)


def test_a_full_disk(mounted):
    folder = mounted("size=1m")
    one = checkpointer(folder, size=100_000)
    one.save("model_0000001", iteration=1)
    filler = folder / "filler"
    filler.write_bytes(bytes(500_000))
    message = assert_fails(one, folder, r"needs 0.4 MiB, and the disk has 0.\d MiB left")
    assert f"The last checkpoint is {folder / 'model_0000001.pth'}" in message
    filler.unlink()
    one.save("model_0000002", iteration=2)
    assert checkpointer(folder, size=100_000).resume()["iteration"] == 2


def test_a_disk_that_gets_full_while_it_is_written_to(mounted):
    """The free space is looked at before; another process takes it meanwhile."""
    folder = mounted("size=1m")
    checkpointer(folder).save("model_0000001", iteration=1)

    class Taking(State):
        def state_dict(self):  # bytes that are not counted as tensors
            return {"text": "x" * 2_000_000}

    one = checkpointer(folder, state=Taking())
    assert_fails(one, folder, r"cannot be written: .*needs 0.0 MiB, and the disk has 1.0 MiB left")


def test_a_disk_that_cannot_be_written_to(mounted):
    folder = mounted("size=1m")
    one = checkpointer(folder)
    one.save("model_0000001", iteration=1)
    mounted("size=1m,remount,ro")
    message = assert_fails(one, folder, "Read-only file system")
    assert "The last checkpoint is" in message


def test_a_tag_that_cannot_be_written(tmp_path):
    """The checkpoint is there and is found all the same."""
    one = checkpointer(tmp_path)
    (tmp_path / "last_checkpoint").mkdir()
    with pytest.raises(RunError, match="last_checkpoint cannot be written"):
        one.save("model_0000001", iteration=1)
    assert names(find_checkpoints(str(tmp_path))) == ["model_0000001.pth"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_that_is_gone_is_made_anew(tmp_path):
    checkpointer(tmp_path / "no-folder").save("model_final", iteration=3)
    assert checkpointer(tmp_path / "no-folder").resume()["iteration"] == 3
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written: .*There is no checkpoint yet"):
        checkpointer(tmp_path / "file").save("model_final")


def test_a_folder_that_is_deleted_while_a_file_is_written(tmp_path):
    folder = tmp_path / "run"

    def write(f):
        f.write(b"content")
        if not (tmp_path / "away").exists():
            folder.rename(tmp_path / "away")

    write_atomically(str(folder / "file"), write)
    assert files(folder) == {"file": b"content"}


def test_a_folder_that_is_deleted_during_the_run_ends_it_after_saving(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    hook = CheckpointHook(checkpointer(folder), 2, keep=1)
    hook.trainer = trainer = SimpleNamespace(start_iter=0, iter=0, max_iter=100)
    hook.before_train()
    for trainer.iter in range(3):
        hook.after_step()
    folder.rename(tmp_path / "away")
    trainer.iter = 3
    with pytest.raises(RunError, match="was deleted during the run.*model_0000003.pth"):
        hook.after_step()
    assert checkpointer(folder).resume()["iteration"] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    checkpointer(tmp_path).save("model_0000001", iteration=1)
    one = checkpointer(tmp_path)
    with torch.no_grad():
        one.model.weight[0, 3] = value
    assert_fails(one, tmp_path, "weight is not finite.*diverged")
    with pytest.raises(RunError, match="not finite"):
        one.save_weights("model_best_PQ")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(f):
        f.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(path), write)
    assert files(tmp_path) == {"file": b"old"}
    write_atomically(str(path), lambda f: f.write(b"new"))
    assert files(tmp_path) == {"file": b"new"}


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    one = checkpointer(tmp_path)
    one.save("model_0000001")
    before = files(tmp_path)
    (tmp_path / "model_0000002.pth.partial").write_bytes(b"PK")
    (tmp_path / "last_checkpoint.partial").write_bytes(b"")
    one.remove_leftovers()
    assert files(tmp_path) == before
    checkpointer(tmp_path / "no-folder").remove_leftovers()


def touch(folder, *names_of_files, time=None):
    for moment, name in enumerate(names_of_files):
        (folder / name).touch()
        moment = moment if time is None else time
        os.utime(folder / name, (moment, moment))


def test_order_of_checkpoints(tmp_path):
    assert find_checkpoints(str(tmp_path / "no-folder")) == []
    assert find_checkpoints(str(tmp_path)) == []
    others = "model_best_PQ.pth", "model_1.pth", "model_0000009.pth.partial", "R-50.pth", "x.txt"
    touch(tmp_path, "model_0000005.pth", "model_final.pth", "model_0000002.pth", *others)
    found = ["model_0000002.pth", "model_final.pth", "model_0000005.pth"]
    assert names(find_checkpoints(str(tmp_path))) == found
    tag = tmp_path / "last_checkpoint"
    tag.write_text("model_final.pth\n")
    expected = ["model_final.pth", "model_0000002.pth", "model_0000005.pth"]
    assert names(find_checkpoints(str(tmp_path))) == expected
    # as after a folder was moved
    tag.write_text("/elsewhere/model_final.pth")
    assert names(find_checkpoints(str(tmp_path))) == expected
    for content in b"model_0000009.pth", b"model_best_PQ.pth", b"", b"\xff\0", b"../x.pth":
        tag.write_bytes(content)
        assert names(find_checkpoints(str(tmp_path))) == found
    tag.unlink()
    tag.mkdir()
    assert names(find_checkpoints(str(tmp_path))) == found


def test_order_of_checkpoints_that_were_copied_at_once(tmp_path):
    touch(tmp_path, "model_0000002.pth", "model_final.pth", "model_0000005.pth", time=1)
    expected = ["model_final.pth", "model_0000005.pth", "model_0000002.pth"]
    assert names(find_checkpoints(str(tmp_path))) == expected


def test_links_and_folders_that_are_no_checkpoints(tmp_path):
    touch(tmp_path, "model_0000001.pth")
    (tmp_path / "model_0000002.pth").symlink_to(tmp_path / "gone.pth")
    (tmp_path / "model_0000003.pth").mkdir()
    assert names(find_checkpoints(str(tmp_path))) == ["model_0000001.pth"]


def test_resume_takes_the_tagged_one(tmp_path):
    for number in 1, 2:
        checkpointer(tmp_path, number).save(f"model_000000{number}", iteration=number)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    one = checkpointer(tmp_path, 9)
    assert one.resume()["iteration"] == 1
    assert one.checkpointables["trainer"].number == 1
    assert (one.model.weight == 1).all()


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"../elsewhere.pth", b"model_0000007.pth"])
def test_a_tag_that_names_no_checkpoint_is_said(tmp_path, caplog, content):
    checkpointer(tmp_path).save("model_0000001", iteration=1)
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert checkpointer(tmp_path).resume()["iteration"] == 1
    assert "last_checkpoint names" in caplog.text and "the newest one is used" in caplog.text


def damage(path):
    path.write_bytes(path.read_bytes()[:300])


def weights_only(path):
    torch.save({"model": nn.Linear(100, 1).state_dict()}, path)


@pytest.mark.parametrize("spoil", [damage, weights_only])
def test_resume_falls_back_and_says_so(tmp_path, caplog, spoil):
    for number in 1, 2, 3:
        checkpointer(tmp_path, number).save(f"model_000000{number}", iteration=number)
        os.utime(tmp_path / f"model_000000{number}.pth", (number, number))
    spoil(tmp_path / "model_0000003.pth")
    (tmp_path / "model_0000002.pth").write_bytes(b"")
    one = checkpointer(tmp_path, 9)
    assert one.resume()["iteration"] == 1
    assert one.checkpointables["trainer"].number == 1
    said = [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "WARNING")]
    assert len(said) == 3
    assert "model_0000003.pth" in said[0] and "model_0000002.pth" in said[1]
    assert said[2] == f"Resuming from {tmp_path / 'model_0000001.pth'}"


def test_resume_with_nothing_to_resume_from(tmp_path):
    with pytest.raises(RunError, match="no checkpoint in OUTPUT_DIR.*\n  there is none"):
        checkpointer(tmp_path).resume()
    checkpointer(tmp_path).save("model_0000001")
    damage(tmp_path / "model_0000001.pth")
    touch(tmp_path, "model_final.pth")
    with pytest.raises(RunError, match="model_0000001.pth(.|\n)*model_final.pth.*it is empty"):
        checkpointer(tmp_path).resume()


def run_hook(folder, first, last, *, keep, period=1, final=100):
    hook = CheckpointHook(checkpointer(folder), period, keep)
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


def test_a_resumed_run_goes_on_removing(tmp_path):
    run_hook(tmp_path, 0, 4, keep=3)
    run_hook(tmp_path, 4, 6, keep=3, final=6)
    found = ["model_final.pth", *(f"model_000000{i}.pth" for i in (4, 3, 2))]
    assert sorted(names(find_checkpoints(str(tmp_path)))) == sorted(found)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_checkpoint_that_somebody_removed_is_no_matter(tmp_path):
    run_hook(tmp_path, 0, 2, keep=2)
    (tmp_path / "model_0000000.pth").unlink()
    run_hook(tmp_path, 2, 4, keep=1)
    assert names(find_checkpoints(str(tmp_path))) == ["model_0000003.pth"]


def test_checkpoints_at_the_end_only(tmp_path):
    run_hook(tmp_path, 0, 5, keep=2, period=0, final=5)
    assert names(find_checkpoints(str(tmp_path))) == ["model_final.pth"]
    with pytest.raises(ValueError, match="CHECKPOINTS_TO_KEEP is -1"):
        CheckpointHook(checkpointer(tmp_path), 1, -1)


def test_processes_that_do_not_write(tmp_path):
    one = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path), save_to_disk=False)
    one.save("model_final")
    one.save_weights("model_best_PQ")
    one.remove_leftovers()
    assert not files(tmp_path)
