"""The output folder: it belongs to one run at a time, and nothing in it is lost."""

import errno
import fcntl
import os
import signal
import socket

import pytest
import runs

from eseg_d2.engine.output_dir import (
    lock_output_dir,
    read_record,
    require_output_dir,
    set_aside,
)
from eseg_d2.utils.errors import RunError


@pytest.mark.parametrize("name", ["metrics.json", "last_checkpoint", "model_0000005.pth"])
@pytest.mark.parametrize("make, kind", [(os.mkdir, "a folder"), (os.mkfifo, "not a regular file")])
def test_folders_and_pipes_in_the_place_of_files_are_named(tmp_path, name, make, kind):
    make(tmp_path / name)
    with pytest.raises(OSError, match=f"{tmp_path / name} is {kind}, .*move it away"):
        require_output_dir(str(tmp_path))


def test_other_folders_and_dangling_links_are_accepted(tmp_path):
    (tmp_path / "inference").mkdir()
    (tmp_path / "model_0000001.pth").symlink_to(tmp_path / "gone.pth")
    require_output_dir(str(tmp_path))
    require_output_dir(str(tmp_path / "new" / "run"))
    assert (tmp_path / "new" / "run").is_dir()


def test_second_run_is_refused_while_the_first_lives(tmp_path):
    """A data worker that outlives a killed run does not keep the folder locked."""
    pids = runs.CONTEXT.SimpleQueue()
    holder = runs.CONTEXT.Process(target=runs.hold, args=(tmp_path, pids))
    holder.start()
    pid, child = pids.get()
    try:
        holder_is_named = f"process {pid} on {socket.gethostname()}, started at 20.*give another"
        with pytest.raises(RunError, match=holder_is_named):
            lock_output_dir(str(tmp_path))
        os.kill(pid, signal.SIGKILL)
        holder.join()
        os.kill(child, 0)  # still alive
        lock_output_dir(str(tmp_path))
    finally:
        os.kill(child, signal.SIGKILL)
    lock_output_dir(str(tmp_path))  # a process may lock its own folder again
    assert f"process {os.getpid()} on" in (tmp_path / "run.lock").read_text()


def test_file_system_without_locks_is_warned_about(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    lock_output_dir(str(tmp_path))
    assert "cannot be locked" in caplog.text and "let no other run write there" in caplog.text


def test_files_set_aside_get_the_next_number(tmp_path, caplog):
    names = ("metrics.json", "run.json", "evaluations.json")
    set_aside(str(tmp_path), names, "why")
    (tmp_path / "evaluations.json").touch()
    assert not caplog.text
    for number in "1", "2":
        for name in names[:2]:
            (tmp_path / name).write_text(number)
        set_aside(str(tmp_path), names, "records of an earlier run")
        assert f"kept as metrics.json.{number}, run.json.{number}" in caplog.text
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    expected = {f"{name}.{number}": number for name in names[:2] for number in ("1", "2")}
    assert found == {**expected, "evaluations.json": ""}


@pytest.mark.parametrize("content", [b'{"starts": [', b"\xff\xfe\0\0", b"3"])
def test_damaged_record_is_set_aside(tmp_path, content):
    def is_valid(record):
        return isinstance(record, dict)

    path = tmp_path / "run.json"
    path.write_bytes(content)
    assert read_record(str(path), is_valid) is None
    assert (tmp_path / "run.json.1").read_bytes() == content and not path.exists()
    path.write_text("{}")
    assert read_record(str(path), is_valid) == {}
    assert read_record(str(tmp_path / "other.json"), is_valid) is None
