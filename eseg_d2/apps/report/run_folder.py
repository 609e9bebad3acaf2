"""What a run has left in its OUTPUT_DIR: a file that is missing or broken is only a note."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from eseg_d2.apps.report.confusion import Confusion
from eseg_d2.apps.report.metrics import class_metrics, finite, flatten
from eseg_d2.utils.json_yaml import load_yaml

__all__ = [
    "Run",
    "datasets",
    "origin",
    "read_config",
    "read_info",
    "read_results",
    "read_run",
    "run_labels",
    "start_time",
]

# What evaluators put among the metrics, by task; with several data sets below their names
_EVALUATED = r"(.*/)?(panoptic_seg|sem_seg|bbox|segm|cityscapes)(_TTA)?/"


@dataclass
class Run:
    """One training or evaluation.

    Attributes:
        folder: its OUTPUT_DIR.
        label: its short name, unique on the page.
        config: the whole configuration, nested; empty if it cannot be read.
        metrics: rows of metrics.json by iteration, ascending; numbers that are finite.
        evaluations: (iteration, flat metrics), ascending.
        results: flat metrics of the last evaluation; None where undefined.
        classes: by metric ("PQ", "IoU") and class name, in percent.
        confusion: of the last evaluation, if it was written.
        info: run.json, or empty.
        started: when it was first started, if that is known.
        error: the end of the log, if the training failed.
        environment: versions by name.
        notes: what is missing or broken, in words.
    """

    folder: Path
    label: str
    config: dict = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[tuple[int, dict]] = field(default_factory=list)
    results: dict[str, float | None] = field(default_factory=dict)
    classes: dict[str, dict[str, float | None]] = field(default_factory=dict)
    confusion: Confusion | None = None
    info: dict = field(default_factory=dict)
    started: datetime | None = None
    error: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a value of the config by a key such as "SOLVER.MAX_ITER"."""
        value = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def iterations(self) -> int:
        """How many iterations are done, by the metrics."""
        done = [row["iteration"] for row in self.metrics if "total_loss" in row]
        return int(done[-1]) + 1 if done else 0

    def done_at(self, iteration: int) -> int:
        """Return how many iterations were done at an evaluation.

        The evaluation at the end notes their number, the others note the last iteration.
        """
        return min(iteration + 1, self.iterations or iteration + 1)

    @property
    def status(self) -> str:
        """How far the run has come, in words."""
        if self.error:
            return f"failed after {self.iterations} iterations"
        if not self.iterations:
            return "evaluated, not trained here" if self.results else "nothing measured yet"
        total = self.setting("SOLVER.MAX_ITER", 0)
        if self.iterations >= (finite(total) or 0):
            return f"finished, {self.iterations} iterations"
        return f"at iteration {self.iterations} of {total}"


def read_run(folder: Path, label: str) -> Run:
    """Read the folder of a run.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds nothing that a run leaves.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: --run names a run's OUTPUT_DIR")
    left = ("config.yaml", "metrics.json", "results.json")
    if not any((folder / name).is_file() for name in left):
        raise ValueError(
            f"{folder} is not the OUTPUT_DIR of a run: it has none of {', '.join(left)}. "
            "train_net.py names the folder in its log, and the config names it as OUTPUT_DIR."
        )
    run = Run(folder, label)
    run.config = read_config(folder, run.notes)
    run.metrics = read_metrics(folder / "metrics.json", run.notes)
    run.info = read_info(folder, run.notes)
    run.started = start_time(folder, run.info)
    run.evaluations = _read_evaluations(run)
    run.results = read_results(folder, run.notes)
    if not run.results and run.evaluations:
        iteration, run.results = run.evaluations[-1]
        run.notes.append(f"the metrics are those after {run.done_at(iteration)} iterations")
    run.classes = _read_classes(folder, run.results, run.notes)
    run.confusion = _read_confusion(folder, run.notes)
    run.error = failure(folder)
    run.environment = environment(folder, run.info)
    return run


def run_labels(folders: Sequence[Path]) -> list[str]:
    """Return the shortest end of each path that distinguishes it from the others.

    Raises:
        ValueError: the same folder is named twice.
    """
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise ValueError("the same run is named twice; give each --run once")
    for count in range(1, max(len(path.parts) for path in resolved) + 1):
        labels = ["/".join(path.parts[-count:]) for path in resolved]
        if len(set(labels)) == len(labels):
            break
    return labels


def read_config(folder: Path, notes: list[str]) -> dict:
    """Return the config.yaml of a run, nested; {} and a note if it cannot be read."""
    content = None
    try:
        content = load_yaml(folder / "config.yaml")
    except FileNotFoundError:
        notes.append("config.yaml is not there")
    except (OSError, ValueError) as error:
        notes.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
    return content if isinstance(content, dict) else {}


def read_results(folder: Path, notes: list[str]) -> dict[str, float | None]:
    """Return the flat metrics of results.json; {} if it is not there."""
    return flatten(read_json(folder / "results.json", dict, notes))


def read_info(folder: Path, notes: list[str]) -> dict:
    """Return the content of run.json; {} if it is not there."""
    return read_json(folder / "run.json", dict, notes)


def start_time(folder: Path, info: dict) -> datetime | None:
    """Return when a run was first started, by run.json, TensorBoard events or config.yaml."""
    starts = info.get("starts")
    first = starts[0] if isinstance(starts, list) and starts else {}
    try:
        return datetime.fromisoformat(first["time"]).astimezone()
    except (KeyError, TypeError, ValueError):
        pass
    names = [path.name.split(".") for path in folder.glob("events.out.tfevents.*")]
    seconds = [int(name[3]) for name in names if name[3].isdecimal()]
    try:
        # events are named by their time; a file's own changes when the folder is copied
        first = min(seconds) if seconds else (folder / "config.yaml").stat().st_mtime
        return datetime.fromtimestamp(first).astimezone()
    except (OSError, OverflowError, ValueError):
        return None


def _read_evaluations(run: Run) -> list[tuple[int, dict]]:
    """Read evaluations.json, or else what evaluators put among the metrics."""
    entries = read_json(run.folder / "evaluations.json", list, run.notes)
    by_iteration = {
        entry["iteration"]: flatten(entry["results"])
        for entry in _dicts(entries)
        if type(entry.get("iteration")) is int and isinstance(entry.get("results"), dict)
    }
    if not by_iteration:
        for row in run.metrics:
            metrics = {k: v for k, v in row.items() if re.match(_EVALUATED, k)}
            if metrics:
                by_iteration[int(row["iteration"])] = metrics
    return sorted(by_iteration.items())


def _read_classes(folder: Path, results: dict, notes: list[str]) -> dict[str, dict]:
    quality = read_json(folder / "inference" / "panoptic_quality.json", dict, notes)
    by_class = {
        name: finite(values.get("PQ"))
        for name, values in quality.items()
        if isinstance(values, dict)
    }
    tables = {"PQ": by_class, "IoU": class_metrics(results)}
    return {metric: table for metric, table in tables.items() if table}


def _read_confusion(folder: Path, notes: list[str]) -> Confusion | None:
    name = "sem_seg_confusion.json"
    content = read_json(folder / "inference" / name, dict, notes)
    try:
        return Confusion.from_json(content) if content else None
    except ValueError as error:
        notes.append(f"{name}: {error}")
        return None


_LOG_PART = 1 << 18  # bytes of a log that are read, at its start or its end
_EXCEPTION = "Exception during training:"
_NEW_START = "Rank of current process"


def origin(info: dict) -> list[tuple[str, str]]:
    """Return command, commit, starts and data sets of a run.json, if present, as (name, text)."""
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
        began = f"{start.get('time', '?')}, at iteration {start.get('iteration', '?')}"
        rows.append(("started", f"{began}, {processes} process{'' if processes == 1 else 'es'}"))
    for name, facts in datasets(info).items():
        fingerprint = facts.get("fingerprint", "?")
        rows.append((name, f"{facts.get('images', '?')} images, fingerprint {fingerprint}"))
    return rows


def datasets(info: dict) -> dict[str, dict]:
    """Return the data sets in a run.json by name."""
    found = info.get("datasets")
    found = found if isinstance(found, dict) else {}
    return {name: facts for name, facts in found.items() if isinstance(facts, dict)}


def environment(folder: Path, info: dict) -> dict[str, str]:
    """Return versions by name: of run.json, or else of the table at the start of log.txt."""
    known = info.get("environment")
    if isinstance(known, dict):
        return {name: str(value) for name, value in known.items()}
    log = _read_part(folder / "log.txt", at_end=False)
    table = re.search(r"Environment info:\s*\n(-+ +-+)\n(.*?)\n-+ +-+\n", log, re.DOTALL)
    rows = [re.split(r" {2,}", line, maxsplit=1) for line in table[2].splitlines()] if table else []
    return {row[0]: row[1] for row in rows if len(row) == 2}


def failure(folder: Path) -> str:
    """Return the end of log.txt from an exception on; "" if there is none or a later start."""
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


def read_json(path: Path, kind: type, notes: list[str]) -> Any:
    """Return the content of a json file; an empty ``kind`` if there is none, or, with a note, if it
    cannot be read or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return kind()
    if not isinstance(content, kind):
        notes.append(f"{path.name} holds a {type(content).__name__}, expected a {kind.__name__}")
        return kind()
    return content


def read_metrics(path: Path, notes: list[str]) -> list[dict[str, float]]:
    """Return the rows of a metrics.json by iteration, ascending, with the finite numbers.

    Rows of training and evaluation at one iteration are joined; after a resume the later row
    counts.

    Args:
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
        notes.append(f"total_loss is not finite in iteration {min(diverged)} and later")
    return [rows[iteration] for iteration in sorted(rows)]


def _parse(line: str) -> dict | None:
    """Return a row with an iteration, or None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and type(row.get("iteration")) is int
    return row if is_row and row["iteration"] >= 0 else None
