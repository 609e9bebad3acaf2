"""A run's json files, read as they are found: broken or of another shape is a note, no error."""

import json
from pathlib import Path
from typing import Any

from eseg_d2.apps.report.figures import finite
from eseg_d2.utils import json_yaml

__all__ = ["read_json", "read_metrics"]


def read_json(path: Path, kind: type, notes: list[str]) -> Any:
    """The content of a file, or an empty ``kind`` (with a note, if there is a file).

    Args:
        path: of the file.
        kind: dict or list, what it should hold.
        notes: gets one more if the file cannot be read or holds something else.
    """
    try:
        content = json_yaml.read_json(path)
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return kind()
    if not isinstance(content, kind):
        notes.append(f"{path.name} holds a {type(content).__name__}, expected a {kind.__name__}")
        return kind()
    return content


def read_metrics(path: Path, notes: list[str]) -> list[dict[str, float]]:
    """The rows of a metrics.json by iteration, ascending, with those numbers that are finite.

    Training and evaluation write rows of their own, which become one; after a resume the later
    row counts.

    Args:
        path: of the file.
        notes: gets one more if there is no file, lines are broken or losses not finite.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        notes.append("metrics.json is not there: no curves")
        return []
    rows: dict[int, dict[str, float]] = {}
    broken, diverged = 0, []
    for line in filter(str.strip, lines):
        row = _parse(line)
        if row is None:
            broken += 1
            continue
        numbers = {key: finite(value) for key, value in row.items()}
        if "total_loss" in row and numbers["total_loss"] is None:
            diverged.append(row["iteration"])
        known = {key: value for key, value in numbers.items() if value is not None}
        rows.setdefault(row["iteration"], {}).update(known)
    if broken:
        notes.append(f"metrics.json: {broken} broken line(s) left out, as a killed run leaves them")
    if diverged:
        notes.append(f"total_loss is no finite number in iteration {min(diverged)} and later")
    return [rows[iteration] for iteration in sorted(rows)]


def _parse(line: str) -> dict | None:
    """A row with an iteration, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and type(row.get("iteration")) is int
    return row if is_row and row["iteration"] >= 0 else None
