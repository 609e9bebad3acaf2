"""Tables and plot of a study: what each configuration reached, and how far they are apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import transforms as T

from eseg_d2.apps.benchmarks.study import Run, median_known, runs_by_config
from eseg_d2.data.datasets.panoptic_format import dataset_dicts
from eseg_d2.engine import load_config
from eseg_d2.evaluation.complexity import analyze_config
from eseg_d2.utils.json_yaml import write_json
from eseg_d2.utils.markup import markdown_table

__all__ = ["paired_difference", "report"]

# in the plot, by the name of the config
_TITLES = {
    "rsp_semantic_R50": "RSP",
    "rsp_semantic_R50_plain": "RSP, plain upsampling",
    "semantic_fpn_R50": "Semantic FPN",
    "deeplab_v3_R50": "DeepLabV3",
    "eseg_lite_s": "ESeg-Lite-S",
    "eseg_lite_s_P5": "ESeg-Lite-S, up to P5",
    "eseg_lite_s_P9": "ESeg-Lite-S, up to P9",
}
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def report(runs: Sequence[Run], output: Path, equal_time: Sequence[Run] = ()) -> str:
    """Write ``study.json``, ``study.md`` and ``study.png``.

    Args:
        runs: at equal steps; all of them are done.
        output: folder of the study.
        equal_time: those of :func:`~eseg_d2.apps.benchmarks.study.equal_time_runs`, done as well.

    Returns:
        Tables as Markdown: mean and sample standard deviation over the seeds; what the first
        config is ahead of each other one by, seed by seed; of semantic models the IoU of each
        class; the first two at equal time; and what the runs were trained on. The plot shows the
        runs at equal steps.
    """
    by_config = runs_by_config(runs)
    costs = {config: _cost(same[0]) for config, same in by_config.items()}
    environments = []
    for run in (*runs, *equal_time):
        if (environment := run.environment()) not in environments:
            environments.append(environment)
    rows = _rows(by_config, costs)
    study = {"environments": environments, "equal_steps": rows}
    parts = [_table(rows), _difference_table(rows), _class_table(rows)]
    if equal_time:
        reference, *_ = by_config
        timed = _rows(runs_by_config([*by_config[reference], *equal_time]), costs)
        study["equal_time"] = timed
        parts.append(
            "At equal time: every other config has the iterations that take as long as those of "
            f"{reference.stem}, by the time of an iteration above."
        )
        parts += [_table(timed), _difference_table(timed)]
    parts += [f"Trained with {_environment_words(environment)}." for environment in environments]
    text = "\n\n".join(part for part in parts if part)
    write_json(output / "study.json", study, indent=1, sort_keys=False)
    (output / "study.md").write_text(text + "\n")
    _figure(rows).savefig(output / "study.png", dpi=120)
    return text


def _rows(by_config: dict[Path, list[Run]], costs: dict[Path, dict]) -> list[dict]:
    rows = []
    for config, same in by_config.items():
        results = [run.results() for run in same]
        ious = [run.class_ious() for run in same]
        rows.append(
            {
                "config": config.stem,
                **costs[config],
                "iterations": same[0].iterations,
                "seeds": [run.seed for run in same],
                "results": {key: [r[key] for r in results] for key in results[0]},
                "class_ious": {key: [iou[key] for iou in ious] for key in ious[0]},
                "seconds": [run.seconds() for run in same],
            }
        )
    return rows


def _cost(run: Run) -> dict:
    """Return parameters, and multiply-adds for the first test image as the model gets it."""
    cfg = load_config(str(run.config), run.overrides)
    record = dataset_dicts(cfg.DATASETS.TEST[0])[0]
    size = T.ResizeShortestEdge.get_output_shape(
        record["height"], record["width"], cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )
    complexity = analyze_config(str(run.config), size, list(run.overrides))
    return {"macs": complexity["macs"]["total"], "params": complexity["params"]}


def _environment_words(environment: dict[str, str]) -> str:
    words = [f"{name} {environment.get(name, '?')}" for name in ("torch", "detectron2", "python")]
    words.append(environment.get("gpu") or environment.get("cpu", "an unknown CPU"))
    if "cpu_threads" in environment:
        words.append(f"CPU threads of a run: {environment['cpu_threads']}")
    return ", ".join(words)


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Return mean and spread over the seeds that define the metric, and their number if not all."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    spread = np.std(known, ddof=1) if len(known) > 1 else 0.0
    few = "" if len(known) == len(values) else f" ({len(known)} of {len(values)})"
    return f"{np.mean(known):.1f} ± {spread:.1f}{few}"


def paired_difference(first: Sequence[float | None], second: Sequence[float | None]) -> str:
    """Return the mean over the seeds of first - second, and its 95 % confidence interval.

    Args:
        first, second: one value for each seed, in the same order; None is left out.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if None not in (a, b)]
    if not pairs:
        return "-"
    differences = np.array([a - b for a, b in pairs])
    mean, degrees = differences.mean(), len(pairs) - 1
    if not 1 <= degrees <= len(_T):
        return f"{mean:+.1f}"
    half = _T[degrees - 1] * differences.std(ddof=1) / len(pairs) ** 0.5
    return f"{mean:+.1f} ({mean - half:+.1f} .. {mean + half:+.1f})"


def _table(rows: list[dict]) -> str:
    metrics = [*rows[0]["results"]]
    head = ["config", *metrics, "G multiply-adds", "M params", "s/iteration", "iterations", "seeds"]
    lines = []
    for row in rows:
        cells = [_mean_and_spread(values) for values in row["results"].values()]
        cells += [f"{row['macs'] / 1e9:.2f}", f"{row['params'] / 1e6:.2f}"]
        seconds = median_known(row["seconds"])
        cells.append("-" if seconds is None else f"{seconds:.2f}")
        lines.append([row["config"], *cells, str(row["iterations"]), str(len(row["seeds"]))])
    return markdown_table(head, lines)


def _difference_table(rows: list[dict]) -> str:
    first, *others = rows
    metrics = [*first["results"]]
    lines = [
        [
            f"{first['config']} - {row['config']}",
            *(paired_difference(first["results"][m], row["results"][m]) for m in metrics),
        ]
        for row in others
        if row["seeds"] == first["seeds"]
    ]
    return markdown_table(["difference (95 %)", *metrics], lines) if lines else ""


def _class_table(rows: list[dict]) -> str:
    """Return the IoU of each class, of semantic models; "" for panoptic ones."""
    if "PQ" in rows[0]["results"]:
        return ""
    lines = [
        [name, *(_mean_and_spread(row["class_ious"][name]) for row in rows)]
        for name in rows[0]["class_ious"]
    ]
    return markdown_table(["IoU", *(row["config"] for row in rows)], lines)


def _figure(rows: list[dict]):
    """Return a matplotlib figure: a panel a metric, every seed a dot and the mean a line."""
    from matplotlib.figure import Figure

    metrics = [*rows[0]["results"]]
    legend_columns = min(len(metrics), 4)  # an entry is no wider than a panel
    legend_rows = -(-len(rows) // legend_columns)
    size = (4.2 * len(metrics), 3.3 + 0.25 * legend_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for metric, panel in zip(metrics, panels, strict=True):
        for number, row in enumerate(rows):
            values = [v for v in row["results"][metric] if v is not None]
            macs, color = row["macs"] / 1e9, f"C{number}"
            label = _TITLES.get(row["config"], row["config"])
            panel.plot([macs] * len(values), values, "o", label=label, color=color, alpha=0.6)
            if values:
                panel.plot(macs, np.mean(values), "_", markersize=24, color=color)
        # room for the means' lines
        panel.set_xlim(0, 1.15 * max(row["macs"] for row in rows) / 1e9)
        panel.set(xlabel="multiply-adds (G)", ylabel=f"{metric} (%)")
        panel.grid(alpha=0.3)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=legend_columns)
    return figure
