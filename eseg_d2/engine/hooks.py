"""Hooks around the training steps: moving average, measurements, checkpoints, evaluation."""

import contextlib
import logging
import math
import os
import resource
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from timm.layers import DropPath
from torch import nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from eseg_d2.data.datasets.panoptic_format import dataset_dicts, is_panoptic
from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.data.train_loader import TrainLoader
from eseg_d2.engine.checkpoint import SafeCheckpointer, find_checkpoints
from eseg_d2.engine.output_dir import plain_results, read_record
from eseg_d2.engine.provenance import RUN_FILE
from eseg_d2.engine.writers import HistoryHook, ProgressHook, WriterHook
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.json_yaml import write_json_atomically
from eseg_d2.utils.random_state import get_random_state, preserved_random_state, seeded

__all__ = [
    "EVALUATIONS_FILE",
    "CheckpointHook",
    "EMAHook",
    "EvaluationHook",
    "PreciseBNHook",
    "ThroughputHook",
    "ValidationLossHook",
    "build_hooks",
]

logger = logging.getLogger(__name__)

EVALUATIONS_FILE = "evaluations.json"
_EVALUATED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, DropPath)


class EMAHook(HookBase):
    """Updates the moving average of parameters and running statistics after every iteration.

    After n iterations the decay is at most (1 + n) / (10 + n), as in TensorFlow's moving averages.
    With a decay of 0.998 from the start, the random initial weights would still make a fifth of the
    average after 800 iterations.

    Attributes:
        model: the averaged model, with the state dict of the trained one.
    """

    def __init__(self, trained: nn.Module, decay: float):
        """
        Args:
            trained: the model in training, without a DistributedDataParallel around it.
            decay: MODEL_EMA.DECAY, in [0, 1); other values are a ValueError.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"MODEL_EMA.DECAY is {decay}; expected a number in [0, 1)")
        self._trained, self._decay = trained, decay
        self._averaged = AveragedModel(trained, multi_avg_fn=self._average, use_buffers=True)
        self.model = self._averaged.module

    def _average(self, averaged: PARAM_LIST, current: PARAM_LIST, _count) -> None:
        count = int(self._averaged.n_averaged)  # _count is on the model's device
        decay = min(self._decay, (1 + count) / (10 + count))
        get_ema_multi_avg_fn(decay)(averaged, current, _count)

    def after_step(self) -> None:
        self._averaged.update_parameters(self._trained)

    def start_from_average(self) -> None:
        """Copy the average's weights, which were just loaded, to the trained model."""
        self._trained.load_state_dict(self.model.state_dict())

    def continue_at(self, iteration: int) -> None:
        """Continue averaging, after the average was loaded from a checkpoint of this iteration."""
        self._averaged.n_averaged.fill_(iteration)


class PreciseBNHook(HookBase):
    """Estimates the batch norms' statistics before each evaluation and at the end.

    Unlike Detectron2's ``PreciseBN`` it takes the same batches every time, so that a resumed run
    gives the same model as an uninterrupted one.
    """

    def __init__(self, loader: TrainLoader, model: nn.Module, period: int, num_iter: int):
        """
        Args:
            loader: loader of training batches, for this hook alone.
            model: model whose running statistics are set.
            period: TEST.EVAL_PERIOD.
            num_iter: number of batches that are averaged over.
        """
        self._loader, self._first = loader, loader.state_dict()
        self._model, self._period, self._num_iter = model, period, num_iter

    def after_step(self) -> None:
        if not _is_due(self.trainer.iter + 1, self._period, self.trainer.max_iter):
            return
        logger.info("Statistics of the batch norms are estimated from %d batches", self._num_iter)
        self._loader.load_state_dict(self._first)
        with EventStorage():  # the losses of these batches are of no interest
            update_bn_stats(self._model, self._loader, self._num_iter)


class ThroughputHook(HookBase):
    """Adds ``images_per_second``, ``data_share`` (0..1) and ``max_mem`` (MiB) to the scalars.

    Register it after Detectron2's ``IterationTimer``, whose times it uses.
    """

    def __init__(self, images_per_step: int, device: torch.device):
        """
        Args:
            images_per_step: number of images in one update, over all processes.
            device: device of the model: ``max_mem`` is PyTorch's peak on a GPU, or the process's.
        """
        self._images, self._device = images_per_step, device

    def after_step(self) -> None:
        storage = self.trainer.storage
        latest = storage.latest()
        if "time" not in latest or latest["time"][1] != self.trainer.iter:
            return  # Detectron2 skips the first iterations
        seconds = latest["time"][0]
        data = latest["data_time"][0] if "data_time" in latest else 0.0
        storage.put_scalar("images_per_second", self._images / seconds)
        storage.put_scalar("data_share", min(data / seconds, 1.0))
        storage.put_scalar("max_mem", self._memory(), smoothing_hint=False)

    def _memory(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class CheckpointHook(HookBase):
    """Saves ``model_<iteration>.pth`` periodically and ``model_final.pth`` at the end.

    Unlike Detectron2's ``PeriodicCheckpointer``, register it in all processes: the states of their
    random number generators go into the file.
    """

    def __init__(self, checkpointer: SafeCheckpointer, period: int, keep: int):
        """
        Args:
            checkpointer: saves the trainer.
            period: number of iterations between checkpoints; 0 or less: only at the end.
            keep: how many of the newest stay on the disk; 0 keeps all, and negative values are a
                ValueError. Those of earlier runs in the same folder are not touched.
        """
        if keep < 0:
            raise ValueError(f"SOLVER.CHECKPOINTS_TO_KEEP is {keep}; expected 0 (all) or more")
        self._checkpointer, self._period, self._keep = checkpointer, period, keep
        self._own: list[str] = []
        self._is_saved = True
        self._run_file = os.path.join(checkpointer.save_dir, RUN_FILE)

    def before_train(self) -> None:
        self._has_run_file = os.path.isfile(self._run_file)
        if self.trainer.start_iter > 0:
            paths = find_checkpoints(self._checkpointer.save_dir)
            self._own = sorted(p for p in paths if not p.endswith("_final.pth"))

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self._is_saved = False
        if _is_due(done, self._period, self.trainer.max_iter):
            self.save()

    def save(self) -> None:
        """Save the last finished iteration unless it is already saved. Call it in all processes."""
        if self._is_saved:
            return
        self._is_saved = True
        self.trainer.random_states = comm.gather(get_random_state())
        if comm.is_main_process():
            is_last = self.trainer.iter + 1 >= self.trainer.max_iter
            self._save("model_final" if is_last else f"model_{self.trainer.iter:07d}")

    def _save(self, name: str) -> None:
        """Write the checkpoint and remove old ones.

        If the folder was deleted, this ends the run after saving: log and metrics still go to files
        that nobody can see.
        """
        is_deleted = self._has_run_file and not os.path.isfile(self._run_file)
        folder = self._checkpointer.save_dir
        self._checkpointer.save(name, iteration=self.trainer.iter)
        path = os.path.join(folder, f"{name}.pth")
        if is_deleted:
            raise RunError(
                f"OUTPUT_DIR {folder!r} was deleted during the run: its content is gone. {path} "
                "has been written again: continue from it with --resume."
            )
        self._remove_old(path)

    def _remove_old(self, newest: str) -> None:
        if newest.endswith("_final.pth") or newest in self._own:
            return
        self._own.append(newest)
        while self._keep and len(self._own) > self._keep:
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._own.pop(0))


class EvaluationHook(HookBase):
    """Evaluates periodically and at the end, like Detectron2's ``EvalHook``.

    All evaluations go to ``OUTPUT_DIR/evaluations.json``, a list of {"iteration", "results"}, and
    the best weights by each metric to ``model_best_<metric>.pth``. (Detectron2's
    ``BestCheckpointer`` would resume runs from these files, and forgets the best metric on
    resuming.) An evaluation that was interrupted, or skipped because the run was to stop, is done
    when the run is resumed.
    """

    def __init__(
        self, evaluate: Callable[[], dict], checkpointer: SafeCheckpointer, options: CfgNode
    ):
        """
        Args:
            evaluate: returns Detectron2's results.
            checkpointer: checkpointer of the evaluated model.
            options: config's TEST; EVAL_PERIOD and BEST_METRICS are read.
        """
        self._evaluate = evaluate
        self._checkpointer = checkpointer
        self._period = options.EVAL_PERIOD
        self._best_metrics = options.BEST_METRICS
        self._path = os.path.join(checkpointer.save_dir, EVALUATIONS_FILE)
        self._history: list[dict] = []

    def before_train(self) -> None:
        start = self.trainer.start_iter
        found = read_record(self._path, _is_history) if start and comm.is_main_process() else None
        found = comm.all_gather(found)[0] or []
        self._history = [entry for entry in found if entry["iteration"] < start]
        last = self._history[-1] if self._history else {"iteration": -1}
        if start and _is_due(start, self._period, self.trainer.max_iter):
            self.trainer.storage.iter = start - 1
            if last["iteration"] != start - 1:
                logger.info("Running the evaluation that iteration %d did not finish", start - 1)
                self._run(start - 1)
            elif comm.is_main_process():
                self._put(flatten_results_dict(last["results"]))
            self.trainer.storage.iter = start

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or self.trainer.stop_signal:
            return
        if _is_due(done, self._period, self.trainer.max_iter):
            self._run(self.trainer.iter)

    def after_train(self) -> None:
        # not after an exception
        if self.trainer.iter >= self.trainer.max_iter > self.trainer.start_iter:
            self._run(self.trainer.max_iter - 1)

    def _run(self, iteration: int) -> None:
        with preserved_random_state():
            results = self._evaluate()
        if comm.is_main_process() and results:
            flat = flatten_results_dict(results)
            self._put(flat)
            self._keep_best(flat, iteration)
            self._history.append({"iteration": iteration, "results": plain_results(results)})
            write_json_atomically(self._path, self._history)
        # the other processes wait until everything is evaluated
        comm.synchronize()

    def _put(self, flat: dict[str, float | None]) -> None:
        """Add results to the scalars, without NaN so that metrics.json stays strict json."""
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


def _is_due(done: int, period: int, max_iter: int) -> bool:
    """Return whether a period (0 or less: none) or the training ends after so many iterations."""
    return done >= max_iter or (period > 0 and done % period == 0)


def _is_history(content) -> bool:
    """Return whether content is a list of {"iteration", "results"}."""
    return isinstance(content, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("iteration"), int)
        and isinstance(entry.get("results"), dict)
        for entry in content
    )


class ValidationLossHook(HookBase):
    """Adds ``validation/<loss>`` and ``validation/total_loss`` to the scalars periodically.

    The losses are computed as in training, but on whole images of DATASETS.TEST at test size,
    without random augmentation: norms use their running statistics, dropout is off, and the random
    choices of the losses (of proposals) on the CPU are the same each time.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        """
        Args:
            cfg: config of the run; DATASETS.TEST, TEST and what the mapper reads.
            model: the evaluated model, without a DistributedDataParallel around it.

        Raises:
            ValueError: DATASETS.TEST is empty, or a data set in it is not panoptic.
        """
        if not cfg.DATASETS.TEST:
            raise ValueError("TEST.VALIDATION_LOSS.ENABLED is True, but DATASETS.TEST is empty")
        for name in cfg.DATASETS.TEST:
            if not is_panoptic(name):
                raise ValueError(
                    f"TEST.VALIDATION_LOSS.ENABLED needs panoptic data sets, but {name} is not "
                    "panoptic: set it to False"
                )
        self._cfg, self._model = cfg, model

    def after_step(self) -> None:
        if _is_due(self.trainer.iter + 1, self._cfg.TEST.EVAL_PERIOD, self.trainer.max_iter):
            with preserved_random_state():
                losses = self._losses()
            if comm.is_main_process():
                self.trainer.storage.put_scalars(smoothing_hint=False, **losses)

    @torch.no_grad()
    def _losses(self) -> dict[str, float]:
        sums: defaultdict[str, float] = defaultdict(float)
        count = 0
        modes = {module: module.training for module in self._model.modules()}
        self._model.train()
        for module in modes:
            if isinstance(module, _EVALUATED):
                module.eval()
        try:
            for sample in self._samples():
                with seeded(0, count):
                    losses = self._model([sample])
                for name, value in losses.items():
                    sums[name] += float(value)
                count += 1
        finally:
            for module, training in modes.items():
                module.training = training
        shares = comm.gather((sums, count))
        if not comm.is_main_process():
            return {}
        total = sum(number for _, number in shares)
        names = dict.fromkeys(name for part, _ in shares for name in part)
        means = {name: sum(part[name] for part, _ in shares) / total for name in names}
        means["total_loss"] = sum(means.values())
        return {f"validation/{name}": value for name, value in means.items()}

    def _samples(self) -> Iterator[dict]:
        """Yield this process's share of the samples."""
        for name in self._cfg.DATASETS.TEST:
            images = dataset_dicts(name)[: self._cfg.TEST.VALIDATION_LOSS.NUM_IMAGES or None]
            mapper = PanopticMapper.for_validation(self._cfg, name)
            for image in images[comm.get_rank() :: comm.get_world_size()]:
                yield mapper(image)


def build_hooks(trainer, checkpoints: CheckpointHook) -> list[HookBase]:
    """Build the hooks of a :class:`~eseg_d2.engine.Trainer`, in the order in which they run.

    Args:
        trainer: the trainer, complete except for its hooks.
        checkpoints: its checkpoint hook, which also saves when a signal ends the run.

    Raises:
        ValueError: a key has a value that its hook rejects.
    """
    cfg = trainer.cfg
    has_validation = cfg.TEST.VALIDATION_LOSS.ENABLED
    built = [
        trainer.ema,  # first, because the hooks below evaluate and save it
        hooks.IterationTimer(),
        ThroughputHook(trainer.images_per_update, torch.device(cfg.MODEL.DEVICE)),
        hooks.LRScheduler(),
        _precise_bn(trainer),
        ValidationLossHook(cfg, trainer.evaluated_model) if has_validation else None,
        HistoryHook(f"{cfg.OUTPUT_DIR}/metrics.json"),
        checkpoints,
        # after the checkpoint: if it fails, nothing is lost
        EvaluationHook(trainer.evaluate, trainer.checkpointer, cfg.TEST),
    ]
    if comm.is_main_process():
        periods = cfg.LOGGING.PERIOD, cfg.TEST.EVAL_PERIOD
        built += [WriterHook(trainer.build_writers, *periods), ProgressHook()]
    return [hook for hook in built if hook is not None]


def _precise_bn(trainer) -> HookBase | None:
    model = trainer.evaluated_model  # the model whose statistics are used
    if not (trainer.cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(model)):
        return None
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # the loader is rarely used
    loader = trainer.build_train_loader(cfg)
    return PreciseBNHook(loader, model, cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER)
