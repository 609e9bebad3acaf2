"""Training: configuration, trainer."""

from eseg_d2.engine.setup import (
    check_launch,
    fetch_weights,
    load_config,
    merge_config,
    require_inputs,
    set_class_counts,
)
from eseg_d2.engine.trainer import Trainer, write_results

__all__ = [
    "Trainer",
    "check_launch",
    "fetch_weights",
    "load_config",
    "merge_config",
    "require_inputs",
    "set_class_counts",
    "write_results",
]
