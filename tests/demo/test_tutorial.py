"""The tutorial, short: a few scenes and iterations of small images."""

import json

import pytest
from commands import python
from PIL import Image
from runs import SHORT


@pytest.mark.slow
def test_from_nothing_to_pictures(root, tmp_path):
    command = ["demo/tutorial.py", "--output", tmp_path / "t"]
    command += ["--iterations", "4", "--num-train", "4", "--num-val", "2", *SHORT, "SEED", "1"]
    for _ in range(2):  # again: what is there is used
        process = python(*command, cwd=root)
        assert process.returncode == 0, process.stderr[-3000:]
        assert "Warning:" not in process.stderr
    for name in "1_data", "2_predictions", "3_context":
        with Image.open(tmp_path / "t" / f"{name}.png") as picture:
            assert picture.width > 300 and len(picture.convert("RGB").getcolors(2**24)) > 50
    results = json.loads((tmp_path / "t" / "results.json").read_text())
    assert "PQ" in results["panoptic_seg"] and f"mIoU {results['sem_seg']['mIoU']:.1f}" in (
        process.stdout
    )
    from eseg_d2.apps.report import build_report

    page = build_report([tmp_path / "t" / "run"])
    assert "2 images ranked by PQ of the image" in page and "No images" not in page
    assert "Nothing to train" in process.stdout + process.stderr
