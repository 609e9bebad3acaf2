"""The page about a run, or about several."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from eseg_d2.apps.report.comparison import config_differences, difference, earlier_runs, metric_rows
from eseg_d2.apps.report.cost import model_size, speed_rows
from eseg_d2.apps.report.curves import evaluation_charts, training_charts
from eseg_d2.apps.report.gallery import Gallery, evenly, make_gallery
from eseg_d2.apps.report.html import render
from eseg_d2.apps.report.metrics import key_metrics
from eseg_d2.apps.report.pictures import ERROR_COLORS, LegendEntry
from eseg_d2.apps.report.predictions import Predictions, find_weights
from eseg_d2.apps.report.run_folder import Run, datasets, origin, read_run, run_labels
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.engine import load_config

__all__ = ["MAX_RUNS", "build_report"]

logger = logging.getLogger(__name__)

MAX_RUNS = 8
"""The number of colours in templates/style.css."""

_MATRIX_CLASSES = 40
_MISTAKES = 20


@dataclass
class _Model:
    """What the report needs the model of a run for; ``missing`` says why something is absent."""

    size: dict | None = None
    predictions: Predictions | None = None
    missing: list[str] = field(default_factory=list)


def build_report(
    folders: Sequence[Path], *, images: int | None = None, weights: Path | None = None
) -> str:
    """Return the report of one run, or the comparison of several, as HTML.

    What is missing in the folder of a run is left out, and the page says so.

    Args:
        folders: OUTPUT_DIRs, up to :data:`MAX_RUNS`.
        images: how many validation images to predict, spread over the data set; None for all,
            0 for none.
        weights: checkpoint of the run, if there is only one; None for its final or last one.

    Raises:
        FileNotFoundError: a folder or the weights are not there.
        ValueError: a folder is not that of a run, or there are too many.
    """
    if len(folders) > MAX_RUNS:
        raise ValueError(f"{len(folders)} runs are too many for one page: name at most {MAX_RUNS}")
    if weights and not weights.is_file():
        raise FileNotFoundError(f"there are no weights {weights}")
    labels = run_labels(folders)
    runs = [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]
    models = {run.label: _load(run, images, weights) for run in runs}
    if images == 0:
        gallery, reasons = None, ["no images were asked for"]
    else:
        gallery, reasons = _gallery(models, images)
    title = f"{len(runs)} runs: {', '.join(labels)}"
    if len(runs) == 1:
        title = "Report on " + "/".join(folders[0].resolve().parts[-2:])
    return render(
        "report.html",
        title=title,
        runs=runs,
        metrics=metric_rows(runs),
        earlier=_earlier(runs[0]) if len(runs) == 1 else None,
        evaluation_charts=evaluation_charts(runs),
        training_charts=training_charts(runs),
        classes=_class_bars(runs),
        confusions=[_confusion(run) for run in runs if run.confusion],
        gallery=gallery,
        gallery_reasons=reasons,
        error_legend=[LegendEntry(*item) for item in ERROR_COLORS.items()],
        speeds=_side_by_side([speed_rows(run) for run in runs]),
        sizes=_sizes(runs, models),
        differences=config_differences([run.config for run in runs]),
        data_differ=_data_differ(runs),
        origins=[origin(run.info) for run in runs],
        environments=_side_by_side([run.environment for run in runs]),
    )


def _load(run: Run, images: int | None, weights: Path | None) -> _Model:
    """Make the parts of a report that need the configuration of a run, as far as possible."""
    model = _Model()
    # Detectron2 would read it, and the file that a _BASE_ names, with a YAML loader that runs code
    if not run.config or "_BASE_" in run.config:
        model.missing.append(f"{run.label}: its config.yaml is not one that a run has written")
        return model
    config_file = str(run.folder / "config.yaml")
    try:
        cfg = load_config(config_file, [])
        model.size = model_size(cfg)
    except Exception as error:  # building any model may raise anything
        model.missing.append(f"{run.label}: the model cannot be built: {_first_line(error)}")
        return model
    if images == 0:
        return model
    try:
        require_datasets(cfg.DATASETS.TEST[:1])
        cfg.MODEL.WEIGHTS = str(weights or find_weights(run.folder))
        predictions = Predictions(run.folder, cfg)
        predictions.complete(evenly([*predictions.truth.records], images))
        model.predictions = predictions
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        logger.warning("%s: no images: %s", run.label, error)
        model.missing.append(f"{run.label}: {error}")
    return model


def _gallery(models: dict[str, _Model], images: int | None) -> tuple[Gallery | None, list[str]]:
    """Draw the runs with predictions for the images of the first one; say why others are absent."""
    reasons = [reason for model in models.values() for reason in model.missing]
    known = {label: m.predictions for label, m in models.items() if m.predictions}
    if not known:
        return None, reasons
    first = next(iter(known.values()))
    names = evenly([*first.truth.records], images)
    same = {label: p for label, p in known.items() if all(n in p.scores for n in names)}
    reasons += [f"{label}: it was validated on other images" for label in known.keys() - same]
    try:
        return make_gallery(same, names, MetadataCatalog.get(first.dataset)), reasons
    except (OSError, ValueError) as error:  # predicted before, and now an image is gone
        return None, [*reasons, str(error)]


def _earlier(run: Run) -> dict:
    """Return the key metrics of earlier runs, and the difference of this one to each."""
    keys = key_metrics(run.results)
    rows = []
    for earlier in earlier_runs(run):
        values = [earlier.results.get(key) for key in keys]
        ours = [difference(run.results[key], v) for key, v in zip(keys, values, strict=True)]
        rows.append({"run": earlier, "cells": list(zip(values, ours, strict=True))})
    means = []
    for place in range(len(keys)):
        known = [r["cells"][place][0] for r in rows if r["cells"][place][0] is not None]
        means.append(float(np.mean(known)) if known else None)
    own = [run.results[key] for key in keys]
    ours = [difference(value, mean) for value, mean in zip(own, means, strict=True)]
    mean_cells = list(zip(means, ours, strict=True))
    return {"names": [*keys.values()], "rows": rows, "own": own, "means": mean_cells}


def _class_bars(runs: Sequence[Run]) -> list[dict]:
    """Return the classes for each metric, the best of the first run first, with all values."""
    charts = []
    for metric in "PQ", "IoU":
        tables = [run.classes.get(metric, {}) for run in runs]
        names = dict.fromkeys(name for table in tables for name in table)
        rows = [(name, [table.get(name) for table in tables]) for name in names]
        known = [row for row in rows if any(value is not None for value in row[1])]
        known.sort(key=lambda row: -1 if row[1][0] is None else row[1][0], reverse=True)
        if known:
            absent = [name for name, values in rows if all(v is None for v in values)]
            charts.append({"metric": metric, "rows": known, "absent": absent})
    return charts


def _confusion(run: Run) -> dict:
    confusion = run.confusion.occurring()
    shares = np.nan_to_num(confusion.shares())
    small = len(confusion.classes) <= _MATRIX_CLASSES
    cells = [] if small else [(i, j, shares[i, j]) for i, j in np.argwhere(shares >= 0.005)]
    return {
        "run": run,
        "classes": confusion.classes,
        "absent": len(run.confusion.classes) - len(confusion.classes),
        "shares": shares.tolist() if small else None,
        "cells": cells,
        "mistakes": confusion.largest(_MISTAKES),
    }


def _sizes(runs: Sequence[Run], models: dict[str, _Model]) -> dict:
    """Return parameters and multiply-adds by part, as text."""
    sizes = [models[run.label].size or {} for run in runs]
    params = [size.get("params", {}) for size in sizes]
    macs = [size.get("macs", {}) for size in sizes]
    return {
        "params": _side_by_side([_with_total(one, 1e6) for one in params]),
        "macs": _side_by_side([_with_total(one, 1e9) for one in macs]),
        "inputs": ["x".join(map(str, size["size"])) if size.get("size") else "" for size in sizes],
        "missing": [
            reason for model in models.values() if not model.size for reason in model.missing
        ],
    }


def _with_total(counts: dict[str, int], unit: float) -> dict[str, str]:
    if not counts:
        return {}
    counts = {**counts, "total": sum(counts.values())}
    return {part: f"{count / unit:.2f}" for part, count in counts.items()}


def _side_by_side(tables: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Return the texts of all tables by name, "–" where one has none; "total" is last."""
    names = dict.fromkeys(name for table in tables for name in table)
    order = sorted(names, key=lambda name: name == "total")
    return {name: [table.get(name, "–") for table in tables] for name in order}


def _data_differ(runs: Sequence[Run]) -> list[str]:
    """Return the data sets whose files differ between the runs."""
    prints: dict[str, set] = {}
    for run in runs:
        for name, facts in datasets(run.info).items():
            prints.setdefault(name, set()).add(str(facts.get("fingerprint")))
    return [name for name, found in prints.items() if len(found) > 1]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
