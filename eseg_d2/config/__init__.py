"""Configuration: the keys that this project adds, reading a file, and completing what it says."""

from eseg_d2.config.defaults import add_eseg_config
from eseg_d2.config.pretrained import pretrained_card, pretrained_config, pretrained_names
from eseg_d2.config.read import all_keys, find_config, merge_config, value_of
from eseg_d2.config.resolve import load_config, resolve_config

__all__ = [
    "add_eseg_config",
    "all_keys",
    "find_config",
    "load_config",
    "merge_config",
    "pretrained_card",
    "pretrained_config",
    "pretrained_names",
    "resolve_config",
    "value_of",
]
