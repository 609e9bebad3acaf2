"""The command line of the report."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def report(*arguments):
    command = [sys.executable, ROOT / "tools/report.py", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=os.environ)


def test_a_page_in_the_runs_folder(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n')
    done = report("--run", tmp_path, "--images", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'report.html'}: ")
    assert "total loss" in (tmp_path / "report.html").read_text()


def test_a_comparison(tmp_path):
    for name in "a", "b":
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n')
    page = tmp_path / "page.html"
    runs = "--run", tmp_path / "a", "--run", tmp_path / "b"
    done = report(*runs, "--images", "0", "--output", page)
    assert done.returncode == 0, done.stderr
    assert "2 runs: a, b" in page.read_text()


def fail(root, monkeypatch, *arguments):
    """The exit's code, which is the message if there is one, of the tool in this process."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "tools/report.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("no/such/folder", "report.py: there is no folder no/such/folder"),
        ("configs", "report.py: configs is not the OUTPUT_DIR of a run"),
    ],
)
def test_what_is_no_run_is_a_short_error(folder, message, root, monkeypatch):
    assert fail(root, monkeypatch, "--run", folder).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "a", "--images", "-1"], "expected 0 or more"),
        (["--run", "a", "--run", "b", "--weights", "c"], "--weights is for one --run"),
        ([], "--run"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, root, monkeypatch, capsys):
    assert fail(root, monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
