"""Where a run comes from: what its run.json and log.txt tell, taken with care."""

import re
from pathlib import Path
from typing import Any

__all__ = ["environment", "failure", "origin"]

_LOG_PART = 1 << 18  # bytes of a log that are read, at its begin or its end
_EXCEPTION = "Exception during training:"
_NEW_START = "Rank of current process"


def origin(info: dict) -> list[tuple[str, str]]:
    """Command, commit, starts and data sets of a run.json as (name, text); what is there of it."""
    rows = []
    command = info.get("command")
    if command:
        words = command if isinstance(command, list) else [command]
        rows.append(("command", " ".join(map(str, words))))
    git = info.get("git")
    if isinstance(git, dict):
        changed = ", with uncommitted changes" if git.get("dirty") else ""
        rows.append(("commit", f"{git.get('commit', '?')}{changed}"))
    for start in _dicts(info.get("starts")):
        processes = start.get("world_size", "?")
        rows.append(
            (
                "started",
                f"{start.get('time', '?')}, at iteration {start.get('iteration', '?')}, "
                f"{processes} process{'' if processes == 1 else 'es'}",
            )
        )
    for name, facts in datasets(info).items():
        fingerprint = facts.get("fingerprint", "?")
        rows.append((name, f"{facts.get('images', '?')} images, fingerprint {fingerprint}"))
    return rows


def datasets(info: dict) -> dict[str, dict]:
    """The data sets in a run.json by name."""
    found = info.get("datasets")
    found = found if isinstance(found, dict) else {}
    return {str(name): facts for name, facts in found.items() if isinstance(facts, dict)}


def environment(folder: Path, info: dict) -> dict[str, str]:
    """Versions by name: by run.json, else by the table that Detectron2 puts first in log.txt."""
    known = info.get("environment")
    if isinstance(known, dict):
        return {str(name): str(value) for name, value in known.items()}
    log = _read_part(folder / "log.txt", at_end=False)
    table = re.search(r"Environment info:\s*\n(-+ +-+)\n(.*?)\n-+ +-+\n", log, re.DOTALL)
    rows = [re.split(r" {2,}", line, maxsplit=1) for line in table[2].splitlines()] if table else []
    return {row[0]: row[1] for row in rows if len(row) == 2}


def failure(folder: Path) -> str:
    """The end of log.txt from an exception on; "" without one, or if the run was started again."""
    _, found, after = _read_part(folder / "log.txt", at_end=True).rpartition(_EXCEPTION)
    if not found or _NEW_START in after:
        return ""
    lines = after.splitlines()
    ends = [i for i, line in enumerate(lines) if re.match(r"\S*\[\d\d/\d\d ", line)]
    return "\n".join(lines[: ends[0]] if ends else lines).strip()[-3000:]


def _dicts(values: Any) -> list[dict]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def _read_part(path: Path, *, at_end: bool) -> str:
    try:
        with open(path, "rb") as file:
            if at_end:
                file.seek(max(path.stat().st_size - _LOG_PART, 0))
            return file.read(_LOG_PART).decode("utf-8", errors="replace")
    except OSError:
        return ""
