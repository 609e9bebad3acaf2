"""Studies: train several configurations with several seeds, and compare them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eseg_d2.data.datasets.panoptic import dataset_dicts
from eseg_d2.engine import load_config
from eseg_d2.evaluation.complexity import analyze_config
from eseg_d2.utils.tables import markdown_table

__all__ = [
    "CONTEXT_PAIRS",
    "Run",
    "make_runs",
    "pair_accuracy",
    "paired_difference",
    "report",
    "train_all",
]

# Classes that look alike up close and are distinguished by their surroundings
CONTEXT_PAIRS = (("road", "sidewalk"), ("person", "rider"))
POLL_SECONDS = 1.0
# Labels in the plot, by the name of the config
_TITLES = {
    "rsp_semantic_R50": "RSP",
    "semantic_fpn_R50": "Semantic FPN",
    "deeplab_v3_R50": "DeepLabV3",
}
# Metrics of panoptic models, by their names in results.json
_PANOPTIC = {("panoptic_seg", name): name for name in ("PQ", "PQ_th", "PQ_st")}
_PANOPTIC |= {("bbox", "AP"): "box AP", ("segm", "AP"): "mask AP"}
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: YAML file.
        seed: SEED of the run.
        output: folder of the study; the run's own is ``folder``.
    """

    config: Path
    seed: int
    output: Path

    @property
    def name(self) -> str:
        return self.config.stem

    @property
    def folder(self) -> Path:
        return self.output / self.name / f"seed{self.seed}"

    def is_done(self, overrides: Sequence[str]) -> bool:
        """Return whether the run has results.

        Raises:
            ValueError: the folder holds a run with other overrides.
        """
        noted = self.folder / "overrides.json"
        if noted.exists() and json.loads(noted.read_text()) != list(overrides):
            raise ValueError(
                f"{self.folder} holds a run with the overrides {json.loads(noted.read_text())}, "
                f"not {list(overrides)}: choose another --output, or delete the folder"
            )
        return (self.folder / "results.json").exists() and noted.exists()

    def start(self, train_net: Path, overrides: Sequence[str], threads: int) -> subprocess.Popen:
        """Start or continue the run; its output goes to ``console.txt`` in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "overrides.json").write_text(json.dumps(list(overrides)))
        command = [sys.executable, train_net, "--config-file", self.config, "--resume"]
        settings = [*overrides, "OUTPUT_DIR", self.folder, "SEED", self.seed]
        with open(self.folder / "console.txt", "a") as console:
            return subprocess.Popen(
                [str(word) for word in (*command, *settings)],
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )

    def results(self) -> dict:
        """Return the metrics in percent, None if undefined.

        They are the panoptic metrics and AP where the model has them, mIoU, and "<a>/<b>" for each
        of CONTEXT_PAIRS that the data set has (see :func:`pair_accuracy`).
        """
        results = json.loads((self.folder / "results.json").read_text())
        metrics = {
            name: results[task][metric]
            for (task, metric), name in _PANOPTIC.items()
            if task in results
        }
        metrics["mIoU"] = results["sem_seg"]["mIoU"]
        confusion = json.loads((self.folder / "inference" / "sem_seg_confusion.json").read_text())
        for pair in CONTEXT_PAIRS:
            if set(pair) <= set(confusion["classes"]):
                indices = [confusion["classes"].index(name) for name in pair]
                accuracy = pair_accuracy(np.array(confusion["pixels"]), indices)
                metrics["/".join(pair)] = None if np.isnan(accuracy) else accuracy
        return metrics

    def seconds(self) -> float | None:
        """Return the median time of an iteration; None if the run was too short."""
        lines = (self.folder / "metrics.json").read_text().splitlines()
        times = [row["time"] for row in map(json.loads, lines) if "time" in row]
        return float(np.median(times)) if times else None


def make_runs(configs: Sequence[Path], seeds: Sequence[int], output: Path) -> list[Run]:
    """Return a run for each config and seed, ordered by seed.

    Raises:
        ValueError: two configs have the same file name, which names the folders of their runs.
    """
    names = [config.stem for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"several configs are called {', '.join(twice)}, but a run's folder is named after its "
            "config: give each config once, or rename a copy"
        )
    return [Run(config, seed, output) for seed in seeds for config in configs]


def pair_accuracy(confusion: np.ndarray, pair: Sequence[int]) -> float:
    """Return how well two classes are told apart, in percent; 50 is chance level.

    It is the share of correct pixels among those pixels of a class that are predicted as one of the
    two, averaged over both classes; NaN if a class has no such pixels.

    Args:
        confusion: (N, N) pixel counts, truth by row and prediction by column.
        pair: two class indices.
    """
    among = confusion[np.ix_(pair, pair)].astype(float)
    with np.errstate(invalid="ignore"):
        return float(100 * (np.diag(among) / among.sum(1)).mean())


def train_all(runs: Sequence[Run], train_net: Path, overrides: Sequence[str], *, jobs: int) -> None:
    """Train the runs that are not done, ``jobs`` at a time.

    Args:
        runs: all runs of the study.
        train_net: the training script.
        overrides: KEY VALUE ... for the command line of all runs.
        jobs: number of processes at a time; they share the CPUs.

    Raises:
        RuntimeError: a run failed; the others are stopped, and can be resumed.
    """
    waiting = [run for run in runs if not run.is_done(overrides)]
    threads = max((os.cpu_count() or 1) // jobs, 1)
    active: dict[Run, subprocess.Popen] = {}
    done = len(runs) - len(waiting)
    try:
        with tqdm(total=len(runs), initial=done, desc="trainings", unit="run") as bar:
            while waiting or active:
                while waiting and len(active) < jobs:
                    run = waiting.pop(0)
                    active[run] = run.start(train_net, overrides, threads)
                time.sleep(POLL_SECONDS)
                for run, process in list(active.items()):
                    if process.poll() is None:
                        continue
                    del active[run]
                    if process.returncode:
                        raise RuntimeError(
                            f"{run.name}, seed {run.seed} failed with status {process.returncode}: "
                            f"see {run.folder / 'console.txt'}. The same command resumes the study."
                        )
                    bar.update()
                bar.set_postfix_str(", ".join(f"{r.name} {r.seed} {_iteration(r)}" for r in active))
    finally:
        for process in active.values():
            process.terminate()
            process.wait()


def _iteration(run: Run) -> str:
    """Return the last iteration in metrics.json, or "starting"."""
    metrics = run.folder / "metrics.json"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return str(json.loads(lines[-1])["iteration"]) if lines else "starting"


def report(runs: Sequence[Run], output: Path) -> str:
    """Write ``study.json``, ``study.md`` and ``study.png``.

    Returns:
        Markdown tables: mean and sample standard deviation over the seeds; and the differences
        between the first config and each other one, paired by seed.
    """
    rows = []
    for config in dict.fromkeys(run.config for run in runs):
        same = [run for run in runs if run.config == config]
        results = [run.results() for run in same]
        complexity = analyze_config(str(config), _image_size(same[0]), [])
        rows.append(
            {
                "config": config.stem,
                "macs": complexity["macs"]["total"],
                "params": complexity["params"],
                "seeds": [run.seed for run in same],
                "results": {key: [r[key] for r in results] for key in results[0]},
                "seconds": [run.seconds() for run in same],
            }
        )
    (output / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = "\n\n".join(part for part in (_table(rows), _difference_table(rows)) if part)
    (output / "study.md").write_text(table + "\n")
    _figure(rows).savefig(output / "study.png", dpi=120)
    return table


def _image_size(run: Run) -> tuple[int, int]:
    record = dataset_dicts(load_config(str(run.config), []).DATASETS.TEST[0])[0]
    return record["height"], record["width"]


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """Return mean and spread over the seeds that have the metric, and their number if not all."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    spread = np.std(known, ddof=1) if len(known) > 1 else 0.0
    few = "" if len(known) == len(values) else f" ({len(known)} of {len(values)})"
    return f"{np.mean(known):.1f} ± {spread:.1f}{few}"


def paired_difference(first: Sequence[float | None], second: Sequence[float | None]) -> str:
    """Return the mean over the seeds of first - second, and its 95 % confidence interval.

    Args:
        first, second: one value for each seed, in the same order; pairs with None are left out.
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


def _table(rows: list[dict]) -> str:
    metrics = [*rows[0]["results"]]
    head = ["config", *metrics, "G multiply-adds", "M params", "s/iteration", "seeds"]
    lines = []
    for row in rows:
        cells = [_mean_and_spread(values) for values in row["results"].values()]
        known = [seconds for seconds in row["seconds"] if seconds is not None]
        time_cell = f"{np.median(known):.2f}" if known else "-"
        costs = [f"{row['macs'] / 1e9:.2f}", f"{row['params'] / 1e6:.2f}", time_cell]
        lines.append([row["config"], *cells, *costs, str(len(row["seeds"]))])
    return markdown_table(head, lines)


def _figure(rows: list[dict]):
    """Return a matplotlib figure with a panel for each metric: seeds as dots, means as lines."""
    from matplotlib.figure import Figure

    metrics = [*rows[0]["results"]]
    figure = Figure(figsize=(4.2 * len(metrics), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(metrics)))
    for metric, panel in zip(metrics, panels, strict=True):
        for number, row in enumerate(rows):
            values = [v for v in row["results"][metric] if v is not None]
            macs, color = row["macs"] / 1e9, f"C{number}"
            label = _TITLES.get(row["config"], row["config"])
            panel.plot([macs] * len(values), values, "o", label=label, color=color, alpha=0.6)
            if values:
                panel.plot(macs, np.mean(values), "_", markersize=24, color=color)
        # leave room for the lines of the means
        panel.set_xlim(0, 1.15 * max(row["macs"] for row in rows) / 1e9)
        panel.set(xlabel="multiply-adds (G)", ylabel=f"{metric} (%)")
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
