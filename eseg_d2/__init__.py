"""RSP and ESeg for Detectron2. Importing this registers its components and data sets."""

from importlib.util import find_spec

if find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "eseg_d2 needs Detectron2, which is not installed: run `make install`, or, in an "
        "environment of your own, `python tools/install_detectron2.py` (see docs/install.md)",
        name="detectron2",
    )

from eseg_d2 import modeling  # noqa: F401, registers
from eseg_d2.config import add_eseg_config
from eseg_d2.data.datasets.builtin import register_all as _register_datasets

__all__ = ["Prediction", "Predictor", "__version__", "add_eseg_config"]
__version__ = "0.1.0"

_register_datasets()


def __getattr__(name: str):
    """`Predictor` and `Prediction` on first use: training needs nothing of them."""
    if name in ("Predictor", "Prediction"):
        from eseg_d2 import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
