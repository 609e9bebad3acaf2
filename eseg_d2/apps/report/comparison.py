"""Runs beside each other: metrics, configurations, and earlier runs."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from eseg_d2.apps.report.metrics import key_metrics, summary_metrics
from eseg_d2.apps.report.run_folder import Run, read_config, read_info, read_results, start_time

__all__ = ["EarlierRun", "config_differences", "earlier_runs", "metric_rows"]

# Keys in which runs of one configuration may differ: where, when and on what machine they ran
_OF_THE_RUN = {
    *("OUTPUT_DIR", "SEED", "MODEL.WEIGHTS", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS"),
    *("SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD", "VIS_PERIOD", "CUDNN_BENCHMARK"),
    *("TEST.SAVE_PREDICTIONS", "TEST.OFFICIAL_CITYSCAPES", "DATASETS.QUICK_CHECK"),
}
_MAX_FOLDERS = 500


@dataclass(frozen=True)
class EarlierRun:
    """A finished run of the same configuration.

    Attributes:
        name: of its folder.
        started: when.
        seed: SEED of its config, as text.
        results: flat metrics.
    """

    name: str
    started: datetime | None
    seed: str
    results: Mapping[str, float | None]


def metric_rows(runs: Sequence[Run]) -> list[dict]:
    """Return every metric over all classes, in each run, and its difference to the first run.

    Returns:
        ``{"name", "is_key", "values": [number or None], "differences": [number or None]}``, the
        key metrics first.
    """
    known = dict.fromkeys(key for run in runs for key in summary_metrics(run.results))
    first = key_metrics(known)
    rows = []
    for key in [*first, *(key for key in known if key not in first)]:
        values = [run.results.get(key) for run in runs]
        differences = [difference(value, values[0]) for value in values]
        name = first.get(key, key.replace("/", " "))
        rows.append(
            {"name": name, "is_key": key in first, "values": values, "differences": differences}
        )
    return rows


def difference(value: float | None, base: float | None) -> float | None:
    """Return the difference of two metrics, or None if one is undefined."""
    return None if value is None or base is None else value - base


def config_differences(configs: Sequence[dict]) -> dict[str, list[str]]:
    """Return the keys in which configs differ, each with its values as text.

    Args:
        configs: nested; an empty one is unknown, and differs from none.

    Returns:
        "" where a key is missing, "?" for an unknown config.
    """
    flat = [_flatten_config(config) if config else None for config in configs]
    keys = sorted(set().union(*filter(None, flat)))
    values = {key: [str(one.get(key, "")) if one else "?" for one in flat] for key in keys}
    return {key: texts for key, texts in values.items() if len(set(texts) - {"?"}) > 1}


def earlier_runs(run: Run) -> list[EarlierRun]:
    """Return the runs of the same configuration in neighbouring folders that started earlier.

    Configurations are the same if they differ only in what belongs to the run itself: folder, seed,
    initial weights, machine, and how often it saves and evaluates. Runs without results are left
    out.

    Args:
        run: without a config it has no earlier runs.
    """
    if not run.config:
        return []
    own = run.folder.resolve()
    found = []
    for folder in _folders(own.parent):
        # os.path: a folder that cannot be read counts as one without results
        if folder == own or not os.path.isfile(folder / "results.json"):
            continue
        notes: list[str] = []
        config = read_config(folder, notes)
        if not config or not _same(config, run.config):
            continue
        started = start_time(folder, read_info(folder, notes))
        if started is None or run.started is None or started > run.started:
            continue
        results = read_results(folder, notes)
        found.append(EarlierRun(folder.name, started, str(config.get("SEED", "")), results))
    return sorted(found, key=lambda earlier: earlier.started)


def _folders(parent: Path) -> list[Path]:
    """List a folder; at most ``_MAX_FOLDERS`` of it, since reading a config takes a while."""
    try:
        return sorted(parent.iterdir())[:_MAX_FOLDERS]
    except OSError:
        return []


def _same(a: dict, b: dict) -> bool:
    return not config_differences([a, b]).keys() - _OF_THE_RUN


def _flatten_config(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix.removesuffix("."): node}
    flat = {}
    for key, value in node.items():
        flat |= _flatten_config(value, f"{prefix}{key}.")
    return flat
