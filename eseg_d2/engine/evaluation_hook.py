"""Evaluation during training, its history, and the best weights so far."""

import json
import logging
import math
import os
from collections.abc import Callable, Sequence

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from eseg_d2.engine.checkpoint import SafeCheckpointer
from eseg_d2.engine.output_dir import read_record
from eseg_d2.engine.results import plain_results
from eseg_d2.utils.files import write_atomically
from eseg_d2.utils.random_state import preserved_random_state

__all__ = ["EVALUATIONS_FILE", "EvaluationHook"]

logger = logging.getLogger(__name__)

EVALUATIONS_FILE = "evaluations.json"


class EvaluationHook(HookBase):
    """Evaluates every so often and at the end, as Detectron2's ``EvalHook`` does.

    All evaluations go to ``OUTPUT_DIR/evaluations.json``, a list of {"iteration", "results"}, and
    the weights of the best one by each metric to ``model_best_<metric>.pth``. A run that was
    killed while it evaluated, or is to stop before, does so when it is resumed.
    """

    def __init__(
        self,
        evaluate: Callable[[], dict],
        checkpointer: SafeCheckpointer,
        *,
        period: int,
        best_metrics: Sequence[str],
    ):
        """
        Args:
            evaluate: gives Detectron2's results.
            checkpointer: of the evaluated model.
            period: iterations from one evaluation to the next; 0: only at the end.
            best_metrics: "task/metric"; higher is better. Those that results lack are ignored.
        """
        self._evaluate = evaluate
        self._checkpointer = checkpointer
        self._period = period
        self._best_metrics = tuple(best_metrics)
        self._path = os.path.join(checkpointer.save_dir, EVALUATIONS_FILE)
        self._history: list[dict] = []

    def before_train(self) -> None:
        start = self.trainer.start_iter
        found = read_record(self._path, _is_history) if start and comm.is_main_process() else None
        found = comm.all_gather(found)[0] or []
        self._history = [entry for entry in found if entry["iteration"] < start]
        last = self._history[-1] if self._history else {"iteration": -1}
        if start and (self._is_due(start) or start >= self.trainer.max_iter):
            self.trainer.storage.iter = start - 1
            if last["iteration"] != start - 1:
                logger.info("Evaluating what iteration %d had left to be evaluated", start - 1)
                self._run(start - 1)
            elif comm.is_main_process():
                self._put(flatten_results_dict(last["results"]))
            self.trainer.storage.iter = start

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._is_due(done) and done < self.trainer.max_iter and not self.trainer.stop_signal:
            self._run(self.trainer.iter)

    def after_train(self) -> None:
        # not after an exception
        if self.trainer.iter >= self.trainer.max_iter > self.trainer.start_iter:
            self._run(self.trainer.max_iter - 1)

    def _is_due(self, done: int) -> bool:
        return self._period > 0 and done % self._period == 0

    def _run(self, iteration: int) -> None:
        with preserved_random_state():
            results = self._evaluate()
        if comm.is_main_process() and results:
            flat = flatten_results_dict(results)
            self._put(flat)
            self._keep_best(flat, iteration)
            self._history.append({"iteration": iteration, "results": plain_results(results)})
            text = json.dumps(self._history, indent=1)
            write_atomically(self._path, lambda f: f.write(text.encode()))
        # the others do not go on before all is evaluated
        comm.synchronize()

    def _put(self, flat: dict[str, float | None]) -> None:
        """Into the scalars, but for NaN: metrics.json stays strict json."""
        finite = {k: v for k, v in flat.items() if v is not None and math.isfinite(v)}
        self.trainer.storage.put_scalars(smoothing_hint=False, **finite)

    def _keep_best(self, flat: dict[str, float], iteration: int) -> None:
        history = [flatten_results_dict(entry["results"]) for entry in self._history]
        for metric in self._best_metrics:
            value = flat.get(metric)
            if value is None or math.isnan(value):
                continue
            earlier = [evaluation.get(metric) for evaluation in history]
            if value > max((v for v in earlier if v is not None), default=float("-inf")):
                name = f"model_best_{metric.replace('/', '_')}"
                logger.info("Best %s so far: %.4g", metric, value)
                self._checkpointer.save_weights(name, iteration=iteration, best={metric: value})


def _is_history(content) -> bool:
    """Return whether this is a list of {"iteration", "results"}."""
    return isinstance(content, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("iteration"), int)
        and isinstance(entry.get("results"), dict)
        for entry in content
    )
