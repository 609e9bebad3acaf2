"""Results of evaluations as strict json."""

import json
import math
import os

from eseg_d2.utils.atomic_files import write_atomically

__all__ = ["plain_results", "read_json", "write_results"]


def plain_results(results: dict) -> dict:
    """Detectron2's nested results as plain floats; NaN becomes None."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return None if math.isnan(value) else float(value)

    return plain(results)


def write_results(results: dict, path: str) -> None:
    """Write Detectron2's dictionary of results as strict json: NaN becomes null.

    Args:
        results: nested dicts of numbers.
        path: of the json file.
    """
    text = json.dumps(plain_results(results), indent=1)
    write_atomically(path, lambda f: f.write(text.encode()))


def read_json(path: str):
    """Return a json file's content, or None if it is not there or damaged."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path) as f:
            return json.load(f)
    except ValueError:
        return None
