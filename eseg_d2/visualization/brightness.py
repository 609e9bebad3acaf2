"""Labels of bright objects: a mend of Detectron2's Visualizer, for all who use it."""

import numpy as np
from detectron2.utils.visualizer import Visualizer

__all__ = ["keep_colors_valid"]

_change_brightness = Visualizer._change_color_brightness


def _change_brightness_within_range(
    self: Visualizer, color, brightness_factor: float
) -> tuple[float, float, float]:
    return tuple(np.clip(_change_brightness(self, color, brightness_factor), 0.0, 1.0).tolist())


def keep_colors_valid() -> None:
    """Detectron2's ``Visualizer`` draws labels of any colour, also under older Pythons.

    The ``colorsys`` of Python before 3.11.5 (python/cpython#106498) gives a bright colour as
    1.0000000000000002, which Matplotlib refuses. The class itself is changed, since Detectron2's
    ``VideoVisualizer`` makes its own. (Our choice.)
    """
    Visualizer._change_color_brightness = _change_brightness_within_range
