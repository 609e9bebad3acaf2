"""Training: trainer, checkpoints, processes."""

from eseg_d2.config import load_config, merge_config
from eseg_d2.engine.checkpoint import find_checkpoints, load_trained, load_weights
from eseg_d2.engine.launch import launch
from eseg_d2.engine.output_dir import lock_output_dir, require_output_dir, write_results
from eseg_d2.engine.preflight import check_launch, prepare_run, require_inputs
from eseg_d2.engine.trainer import Trainer
from eseg_d2.engine.weights import fetch_weights
from eseg_d2.engine.writers import log_to

__all__ = [
    "Trainer",
    "check_launch",
    "fetch_weights",
    "find_checkpoints",
    "launch",
    "load_config",
    "load_trained",
    "load_weights",
    "lock_output_dir",
    "log_to",
    "merge_config",
    "prepare_run",
    "require_inputs",
    "require_output_dir",
    "write_results",
]
