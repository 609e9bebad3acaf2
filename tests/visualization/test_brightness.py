import colorsys

import numpy as np
import pytest
from detectron2.utils import video_visualizer
from detectron2.utils.visualizer import Visualizer
from matplotlib.colors import to_rgb

import eseg_d2.visualization  # noqa: F401, mends it


@pytest.mark.parametrize("visualizer", [Visualizer, video_visualizer.Visualizer])
def test_rounded_colors_stay_valid(monkeypatch, visualizer):
    """As Python before 3.11.5 rounds."""
    above = 1.0000000000000002
    monkeypatch.setattr(colorsys, "hls_to_rgb", lambda *_: (above, -1e-17, 0.5))
    with pytest.raises(ValueError, match="0-1 range"):
        to_rgb((above, 0.0, 0.5))
    drawer = visualizer(np.zeros((4, 4, 3), np.uint8))
    assert to_rgb(drawer._change_color_brightness((0.9, 0.8, 0.7), 0.7)) == (1.0, 0.0, 0.5)


def test_other_colors_are_as_they_were():
    drawer = Visualizer(np.zeros((4, 4, 3), np.uint8))
    for factor in (-0.7, 0.0, 0.7):
        hue, lightness, saturation = colorsys.rgb_to_hls(0.2, 0.4, 0.3)
        expected = colorsys.hls_to_rgb(hue, lightness * (1 + factor), saturation)
        assert drawer._change_color_brightness((0.2, 0.4, 0.3), factor) == pytest.approx(expected)
