"""Training: configuration, trainer, checkpoints, processes."""

from eseg_d2.engine.checkpoint import find_checkpoints, load_weights
from eseg_d2.engine.launch import launch
from eseg_d2.engine.output_dir import lock_output_dir, require_output_dir
from eseg_d2.engine.preflight import check_launch, prepare_run
from eseg_d2.engine.results import write_results
from eseg_d2.engine.setup import (
    fetch_weights,
    load_config,
    merge_config,
    require_inputs,
    set_class_counts,
)
from eseg_d2.engine.trainer import Trainer
from eseg_d2.engine.writers import log_to

__all__ = [
    "Trainer",
    "check_launch",
    "fetch_weights",
    "find_checkpoints",
    "launch",
    "load_config",
    "load_weights",
    "lock_output_dir",
    "log_to",
    "merge_config",
    "prepare_run",
    "require_inputs",
    "require_output_dir",
    "set_class_counts",
    "write_results",
]
