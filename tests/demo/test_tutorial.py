"""The tutorial as a script and as a notebook, with few small scenes and few iterations."""

import json
import shlex
import sys

import jupytext
import nbformat
import pytest
from commands import python
from nbclient import NotebookClient
from PIL import Image
from runs import SHORT


def arguments(folder):
    words = ["--output", folder / "t", "--iterations", "4", "--num-train", "4", "--num-val", "2"]
    return [str(word) for word in (*words, *SHORT, "SEED", "1")]


def assert_pictures(folder):
    for name in "1_trained_model", "2_data", "3_predictions", "4_context":
        with Image.open(folder / "t" / f"{name}.png") as picture:
            assert picture.width > 300 and len(picture.convert("RGB").getcolors(2**24)) > 50


@pytest.mark.slow
def test_script_goes_from_a_trained_model_to_pictures(root, tmp_path):
    process = python("demo/tutorial.py", *arguments(tmp_path), cwd=root)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "Warning:" not in process.stderr
    assert_pictures(tmp_path)
    results = json.loads((tmp_path / "t" / "results.json").read_text())
    assert "PQ" in results["panoptic_seg"] and f"mIoU {results['sem_seg']['mIoU']:.1f}" in (
        process.stdout
    )
    from eseg_d2.apps.report import build_report

    page = build_report([tmp_path / "t" / "run"])
    assert "2 images ranked by PQ of the image" in page and "No images" not in page


@pytest.mark.slow
def test_notebook_runs(root, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL", shlex.join(arguments(tmp_path)))
    kernels = tmp_path / "kernels" / "python3"  # of this environment, whatever other kernels exist
    kernels.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": words, "display_name": "here", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    notebook = nbformat.read(root / "demo" / "tutorial.ipynb", as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(root / "demo")}}
    )
    client.execute()
    assert_pictures(tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4


def test_notebook_matches_the_script(root):
    """After a change, run: jupytext --to ipynb demo/tutorial.py."""
    script = jupytext.read(root / "demo" / "tutorial.py")
    notebook = nbformat.read(root / "demo" / "tutorial.ipynb", as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (script, notebook)]
    assert cells[0] == cells[1]
    assert not any(cell.get("outputs") for cell in notebook.cells)
