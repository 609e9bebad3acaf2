"""Types of command-line arguments that the tools share. This imports nothing heavy."""

import argparse

__all__ = ["image_size"]


def image_size(text: str) -> tuple[int, int]:
    """Return (height, width) of "HxW", such as "1024x2048"."""
    try:
        height, width = map(int, text.lower().split("x"))
        if height < 1 or width < 1:
            raise ValueError
    except ValueError:
        message = f"got {text!r}, expected HxW such as 128x256"
        raise argparse.ArgumentTypeError(message) from None
    return height, width
