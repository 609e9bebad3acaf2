"""Results of evaluations as strict json."""

import json
import math

from eseg_d2.utils.files import write_atomically

__all__ = ["plain_results", "write_results"]


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
