"""RSP and ESeg for Detectron2. Importing this registers its components and data sets."""

import os
import warnings
from importlib import import_module
from importlib.util import find_spec

if find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "eseg_d2 needs Detectron2, which is not installed: run `make install`, or, in an "
        "environment of your own, `python tools/install_detectron2.py` (see docs/install.md)",
        name="detectron2",
    )

# Large tensors on a CPU use huge pages, where the system allows them: a fifth of the page faults.
# This is read at torch's first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

with warnings.catch_warnings():
    # Detectron2 and what it imports use what newer releases deprecate; nobody here can change it.
    # Warnings of everything else stay as the program that imports us has set them.
    warnings.simplefilter("ignore")
    from eseg_d2 import modeling  # noqa: F401, registers
    from eseg_d2.config import add_eseg_config, find_config
    from eseg_d2.data.datasets.builtin import register_all as _register_datasets

__all__ = [
    "Prediction",
    "Predictor",
    "__version__",
    "add_eseg_config",
    "find_config",
    "load_config",
]
__version__ = "0.1.0"

_register_datasets()

# Imported on first use, so that `import eseg_d2` in a script of Detectron2's parts stays quick
_LAZY = {
    "Prediction": "eseg_d2.inference",
    "Predictor": "eseg_d2.inference",
    "load_config": "eseg_d2.config",
}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
