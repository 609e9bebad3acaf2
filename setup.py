"""For tools that run setup.py. All metadata and dependencies are in pyproject.toml."""

from setuptools import setup

setup()
