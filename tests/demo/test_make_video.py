import runpy

import numpy as np
import pytest

from eseg_d2.inference.video import VideoReader


@pytest.fixture(scope="module")
def main(root):
    return runpy.run_path(str(root / "demo/make_video.py"))["main"]


def test_camera_pans(main, tmp_path, capsys):
    main(["--output", str(tmp_path / "new/a.mp4"), "--frames", "5"])
    assert "5 frames of 384 x 192 at 12 frames/s, H.264" in capsys.readouterr().out
    with VideoReader(tmp_path / "new/a.mp4") as reader:
        frames = [frame.astype(int) for _, frame in reader.frames()]
    still = np.abs(frames[1] - frames[0]).mean()
    moved = np.abs(frames[1][:, :-3] - frames[0][:, 3:]).mean()
    assert moved < still / 2
