"""Every configuration key that eseg_d2 adds, and the configurations that come with it."""

from eseg_d2.config.defaults import add_eseg_config
from eseg_d2.config.shipped import find_config

__all__ = ["add_eseg_config", "find_config"]
