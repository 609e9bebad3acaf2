"""A study: several configurations with several seeds are trained, to be compared.

The runs of one seed have the iterations of their configs, or those that take the same time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eseg_d2.utils.json_yaml import load_yaml, read_json, read_json_or_none, write_json_atomically

__all__ = [
    "CONTEXT_PAIRS",
    "Run",
    "equal_time_runs",
    "make_runs",
    "median_known",
    "pair_accuracy",
    "runs_by_config",
    "train_all",
]

# Classes that look alike nearby and are distinguished by their surroundings
CONTEXT_PAIRS = (("road", "sidewalk"), ("person", "rider"))
EQUAL_TIME_FILE = "equal_time.json"
POLL_SECONDS = 1.0
# by their names in results.json
_PANOPTIC = {("panoptic_seg", name): name for name in ("PQ", "PQ_th", "PQ_st")}
_PANOPTIC |= {("bbox", "AP"): "box AP", ("segm", "AP"): "mask AP"}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: its YAML file.
        seed: SEED of the run.
        folder: its OUTPUT_DIR.
        overrides: KEY, VALUE, ... for the config.
    """

    config: Path
    seed: int
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.config.stem

    def is_done(self) -> bool:
        """Return whether it was trained, and evaluated at the end.

        Raises:
            ValueError: the folder holds a run with other overrides.
        """
        overrides = read_json_or_none(self.folder / "overrides.json")
        if overrides is None:
            return False
        if overrides != list(self.overrides):
            raise ValueError(
                f"{self.folder} holds a run with the overrides {overrides}, not "
                f"{list(self.overrides)}: name another --output, or delete the folder"
            )
        evaluations = read_json_or_none(self.folder / "evaluations.json")
        return bool(evaluations) and evaluations[-1]["iteration"] + 1 >= self.iterations

    def start(self, train_net: Path, threads: int) -> subprocess.Popen:
        """Start or continue the run; its output goes to ``console.txt`` in its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json_atomically(str(self.folder / "overrides.json"), list(self.overrides))
        command = [sys.executable, train_net, "--config-file", self.config, "--resume"]
        settings = [*self.overrides, "OUTPUT_DIR", self.folder, "SEED", self.seed]
        with open(self.folder / "console.txt", "a") as console:
            return subprocess.Popen(
                [str(word) for word in (*command, *settings)],
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )

    @property
    def solver(self) -> dict:
        """SOLVER of the config that the run was started with."""
        return load_yaml(self.folder / "config.yaml")["SOLVER"]

    @property
    def iterations(self) -> int:
        return self.solver["MAX_ITER"]

    def results(self) -> dict:
        """Return the metrics in percent, None if undefined: those of panoptic models that have
        them, mIoU, and "<a>/<b>" for each of CONTEXT_PAIRS that the data set has."""
        results = read_json(self.folder / "results.json")
        metrics = {
            name: results[task][metric]
            for (task, metric), name in _PANOPTIC.items()
            if task in results
        }
        metrics["mIoU"] = results["sem_seg"]["mIoU"]
        confusion = read_json(self.folder / "inference" / "sem_seg_confusion.json")
        for pair in CONTEXT_PAIRS:
            if set(pair) <= set(confusion["classes"]):
                indices = [confusion["classes"].index(name) for name in pair]
                accuracy = pair_accuracy(np.array(confusion["pixels"]), indices)
                metrics["/".join(pair)] = None if np.isnan(accuracy) else accuracy
        return metrics

    def class_ious(self) -> dict:
        """Return the IoU of each class in percent, None if it does not occur."""
        results = read_json(self.folder / "results.json")["sem_seg"]
        return {k.removeprefix("IoU-"): v for k, v in results.items() if k.startswith("IoU-")}

    def environment(self) -> dict[str, str]:
        """Return the versions and the machine that the run was last started on, by name."""
        return read_json(self.folder / "run.json")["environment"]

    def seconds(self) -> float | None:
        """Return the median time of an iteration, None if the run was too short to tell."""
        lines = (self.folder / "metrics.json").read_text().splitlines()
        times = [row["time"] for row in map(json.loads, lines) if "time" in row]
        return float(np.median(times)) if times else None


def make_runs(
    configs: Sequence[Path], seeds: Sequence[int], output: Path, overrides: Sequence[str] = ()
) -> list[Run]:
    """Return a run for each config and seed, ordered by seed.

    Args:
        configs: YAML files.
        seeds: of each config.
        output: folder of the study.
        overrides: KEY, VALUE, ... for all runs.

    Raises:
        ValueError: two configs have the same file name, which names the folders of their runs.
    """
    names = [config.stem for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"several configs are called {', '.join(twice)}, and a run's folder is named after its "
            "config: give each once, or rename a copy"
        )
    return [
        Run(config, seed, output / config.stem / f"seed{seed}", tuple(overrides))
        for seed in seeds
        for config in configs
    ]


def runs_by_config(runs: Sequence[Run]) -> dict[Path, list[Run]]:
    """Return the runs of each config, in their order."""
    configs = dict.fromkeys(run.config for run in runs)
    return {config: [run for run in runs if run.config == config] for config in configs}


def median_known(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def equal_time_runs(runs: Sequence[Run], output: Path) -> list[Run]:
    """Return the runs of all configs but the first, made as long as the first one's in time.

    The first config is the reference: the others are compared with it, and its runs serve for both
    comparisons. Another config gets the iterations that take as long as the reference's, by the
    times of an iteration, medians over the seeds. The numbers are noted in ``equal_time.json``, and
    used again when the study goes on. SOLVER.STEPS are scaled alike; warm-up and periods stay.

    Args:
        runs: all runs of the study at equal steps; they are done.
        output: folder of the study.

    Raises:
        ValueError: a run was too short to tell the time of an iteration, or the noted iterations
            were chosen for another reference or other overrides.
    """
    (reference, own), *others = runs_by_config(runs).items()
    path = output / EQUAL_TIME_FILE
    study = {"reference": reference.stem, "overrides": list(own[0].overrides)}
    noted = read_json(path) if path.exists() else {**study, "iterations": {}}
    if study != {key: noted[key] for key in study}:
        raise ValueError(
            f"{path} holds the iterations for the reference {noted['reference']} and the overrides "
            f"{noted['overrides']}, not {study['reference']} and {study['overrides']}: name "
            "another --output, or delete the file and the folders equal_time_*"
        )
    iterations = noted["iterations"]
    for config, same in others:
        if config.stem not in iterations:
            seconds = own[0].iterations * _known_seconds(own)
            iterations[config.stem] = max(round(seconds / _known_seconds(same)), 1)
    write_json_atomically(str(path), noted)
    return [_with_iterations(run, iterations[run.name]) for run in runs if run.config != reference]


def _known_seconds(runs: Sequence[Run]) -> float:
    seconds = median_known(run.seconds() for run in runs)
    if seconds is None:
        raise ValueError(
            f"{runs[0].folder} was too short to tell the time of an iteration: give more "
            "iterations, by SOLVER.MAX_ITER, for runs of equal time"
        )
    return seconds


def _with_iterations(run: Run, iterations: int) -> Run:
    """Return the run at equal time that belongs to a run at equal steps."""
    overrides = ["SOLVER.MAX_ITER", str(iterations)]
    if run.solver["STEPS"]:
        steps = tuple(step * iterations // run.iterations for step in run.solver["STEPS"])
        overrides += ["SOLVER.STEPS", str(steps)]
    folder = run.folder.with_name(f"equal_time_{run.folder.name}")
    return replace(run, folder=folder, overrides=(*run.overrides, *overrides))


def pair_accuracy(confusion: np.ndarray, pair: Sequence[int]) -> float:
    """Return how well two classes are distinguished, in percent; 50 is chance.

    Of the pixels of a class that are predicted as one of the two, this is the share that is right,
    averaged over both classes. NaN if no pixel of a class is predicted as either.

    Args:
        confusion: (N, N) pixel counts, truth by row and prediction by column.
        pair: two class indices.
    """
    among = confusion[np.ix_(pair, pair)].astype(float)
    with np.errstate(invalid="ignore"):
        return float(100 * (np.diag(among) / among.sum(1)).mean())


def train_all(runs: Sequence[Run], train_net: Path, *, jobs: int) -> None:
    """Train the runs that are not done, ``jobs`` at a time.

    Args:
        runs: of the study, at equal steps or equal time.
        train_net: the script that trains.
        jobs: processes at a time; they share the CPUs.

    Raises:
        RuntimeError: a run failed; the others are stopped and can be continued.
        ValueError: see :meth:`Run.is_done`.
    """
    waiting = [run for run in runs if not run.is_done()]
    threads = max((os.cpu_count() or 1) // jobs, 1)
    active: dict[Run, subprocess.Popen] = {}
    done = len(runs) - len(waiting)
    try:
        with tqdm(total=len(runs), initial=done, desc="trainings", unit="run") as bar:
            while waiting or active:
                while waiting and len(active) < jobs:
                    run = waiting.pop(0)
                    active[run] = run.start(train_net, threads)
                time.sleep(POLL_SECONDS)
                for run, process in list(active.items()):
                    if process.poll() is None:
                        continue
                    del active[run]
                    if process.returncode:
                        raise RuntimeError(
                            f"{run.name}, seed {run.seed} failed with status {process.returncode}: "
                            f"see {run.folder / 'console.txt'}. The same command continues."
                        )
                    bar.update()
                bar.set_postfix_str(", ".join(f"{r.name} {r.seed} {_iteration(r)}" for r in active))
    finally:
        for process in active.values():
            process.terminate()
            process.wait()


def _iteration(run: Run) -> str:
    """Return the last iteration in metrics.json, or "starts"."""
    metrics = run.folder / "metrics.json"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return str(json.loads(lines[-1])["iteration"]) if lines else "starts"
