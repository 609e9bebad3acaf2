"""tools/report.py, run as a command."""

from commands import python


def report(root, *arguments):
    return python(root / "tools/report.py", *arguments, cwd=root)


def test_page_is_written_into_the_runs_folder(root, tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n')
    done = report(root, "--run", tmp_path, "--images", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'report.html'}: ")
    assert "total loss" in (tmp_path / "report.html").read_text()


def test_two_runs_are_compared_on_one_page(root, tmp_path):
    for name in "a", "b":
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n')
    page = tmp_path / "page.html"
    runs = "--run", tmp_path / "a", "--run", tmp_path / "b"
    done = report(root, *runs, "--images", "0", "--output", page)
    assert done.returncode == 0, done.stderr
    assert "2 runs: a, b" in page.read_text()
