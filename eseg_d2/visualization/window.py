"""A matplotlib window that shows pictures."""

import numpy as np

__all__ = ["Window", "WindowClosed"]


class WindowClosed(Exception):
    """The user closed the window before the last frame."""


class Window:
    """A window; it needs a display and a matplotlib backend for it (tkinter or Qt)."""

    def __init__(self):
        """
        Raises:
            ValueError: there is no display, or no backend for it.
        """
        import matplotlib.pyplot as plt

        if plt.get_backend().lower() == "agg":
            raise ValueError(
                "there is no display to show pictures on (or no tkinter or Qt for matplotlib): "
                "add --output with a file or folder"
            )
        self._plt, self._image = plt, None

    def show_and_wait(self, picture: np.ndarray, title: str) -> None:
        """Show an (H, W, 3) uint8 RGB picture until the window is closed."""
        self.show(picture, title)
        self._plt.show(block=True)
        self._image = None

    def show(self, picture: np.ndarray, title: str = "") -> None:
        """Show an (H, W, 3) uint8 RGB picture in place of the previous one.

        Raises:
            WindowClosed: the user closed the window.
        """
        if self._image is None:
            figure, axes = self._plt.subplots(layout="constrained")
            axes.set_axis_off()
            self._image = axes.imshow(picture)
            assert figure.canvas.manager is not None  # pyplot's figures have one
            figure.canvas.manager.set_window_title(title)
        elif not self._plt.fignum_exists(self._image.figure.number):
            raise WindowClosed
        else:
            self._image.set_data(picture)
        self._plt.pause(0.001)
