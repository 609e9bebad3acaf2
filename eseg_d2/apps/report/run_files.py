"""What a run has left in its OUTPUT_DIR: read so that a missing or broken file is only a note."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from eseg_d2.apps.report.confusion import Confusion
from eseg_d2.apps.report.figures import class_figures, finite, flatten
from eseg_d2.apps.report.json_files import read_json, read_metrics
from eseg_d2.apps.report.origin import environment, failure
from eseg_d2.utils.json_yaml import load_yaml

__all__ = [
    "Run",
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
        evaluations: (iteration, flat figures), ascending.
        results: flat figures of the last evaluation; None where undefined.
        classes: by figure ("PQ", "IoU") and class name, in percent.
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
        """A value of the config, such as "SOLVER.MAX_ITER"."""
        value = self.config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    @property
    def iterations(self) -> int:
        """How many are done, as far as the metrics tell."""
        done = [row["iteration"] for row in self.metrics if "total_loss" in row]
        return int(done[-1]) + 1 if done else 0

    def done_at(self, iteration: int) -> int:
        """How many were done at an evaluation; the last one notes their number, others the last."""
        return min(iteration + 1, self.iterations or iteration + 1)

    @property
    def status(self) -> str:
        """In words: how far it is."""
        if self.error:
            return f"failed after {self.iterations} iterations"
        if not self.iterations:
            return "evaluated, not trained here" if self.results else "nothing measured yet"
        total = self.setting("SOLVER.MAX_ITER", 0)
        if self.iterations >= (finite(total) or 0):
            return f"finished, {self.iterations} iterations"
        return f"at iteration {self.iterations} of {total}"


def read_run(folder: Path, label: str) -> Run:
    """
    Args:
        folder: the run's OUTPUT_DIR.
        label: its name on the page.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it holds nothing that a run leaves.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: --run names a run's OUTPUT_DIR")
    left = ("config.yaml", "metrics.json", "results.json")
    if not any((folder / name).is_file() for name in left):
        raise ValueError(
            f"{folder} is no run's OUTPUT_DIR: it has none of {', '.join(left)}. "
            "train_net.py names the folder in its log, and the config in OUTPUT_DIR."
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
    """The shortest end of each path that tells it from the others.

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
    """The config.yaml of a run, nested; {} and a note if there is none that can be read."""
    path = folder / "config.yaml"
    try:
        content = load_yaml(path)
    except FileNotFoundError:
        content = None
        notes.append("config.yaml is not there")
    except (OSError, ValueError) as error:
        content = None
        notes.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
    return content if isinstance(content, dict) else {}


def read_results(folder: Path, notes: list[str]) -> dict[str, float | None]:
    """Flat figures of results.json; {} if it is not there."""
    return flatten(read_json(folder / "results.json", dict, notes) or {})


def read_info(folder: Path, notes: list[str]) -> dict:
    """The run.json; {} if it is not there."""
    return read_json(folder / "run.json", dict, notes)


def start_time(folder: Path, info: dict) -> datetime | None:
    """When a run was first started: by its run.json, its TensorBoard events or its config.yaml."""
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
    """By evaluations.json, else what evaluators put among the metrics."""
    entries = read_json(run.folder / "evaluations.json", list, run.notes)
    by_iteration = {
        entry["iteration"]: flatten(entry.get("results") or {})
        for entry in entries
        if isinstance(entry, dict) and type(entry.get("iteration")) is int
    }
    if not by_iteration:
        for row in run.metrics:
            figures = {k: v for k, v in row.items() if re.match(_EVALUATED, k)}
            if figures:
                by_iteration[int(row["iteration"])] = figures
    return sorted(by_iteration.items())


def _read_classes(folder: Path, results: dict, notes: list[str]) -> dict[str, dict]:
    classes = {}
    quality = read_json(folder / "inference" / "panoptic_quality.json", dict, notes)
    by_class = {
        str(name): finite(values.get("PQ"))
        for name, values in quality.items()
        if isinstance(values, dict)
    }
    if by_class:
        classes["PQ"] = by_class
    if class_figures(results):
        classes["IoU"] = class_figures(results)
    return classes


def _read_confusion(folder: Path, notes: list[str]) -> Confusion | None:
    name = "sem_seg_confusion.json"
    content = read_json(folder / "inference" / name, dict, notes)
    try:
        return Confusion.from_json(content) if content else None
    except ValueError as error:
        notes.append(f"{name}: {error}")
        return None
