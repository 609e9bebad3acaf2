"""All steps of `make demo` on a small scale, run twice."""

import numpy as np
import pytest
from commands import python
from PIL import Image
from runs import SHORT


def make_demo(root, folder):
    words = ["demo/make_demo.py", "--output", folder / "demo", "--num-train", "4"]
    words += ["--num-val", "2", "--num-pictures", "2", *SHORT, "SOLVER.MAX_ITER", 3]
    return python(*words, cwd=root, DETECTRON2_DATASETS=folder / "data")


@pytest.mark.slow
def test_demo_makes_scenes_trains_and_draws(root, tmp_path):
    first = make_demo(root, tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "Warning:" not in first.stderr
    pictures = sorted((tmp_path / "demo").glob("*.png"))
    assert len(pictures) == 4
    for path in pictures:
        if path.name == "street.png":  # the image that the commands in the docs use
            assert Image.open(path).size == (384, 192)
            continue
        assert str(path) in first.stdout
        assert np.asarray(Image.open(path)).std() > 10
    for figure in "PQ", "mIoU", "AP":
        assert figure in first.stdout

    again = make_demo(root, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "used again" in again.stdout
