"""Configuration keys that this project adds to those of Detectron2."""

from eseg_d2.config.defaults import add_eseg_config

__all__ = ["add_eseg_config"]
