"""The trainer: what a training run does in which order, and what it keeps."""

import contextlib
import inspect
import logging
import math
import os
import signal
import time
import weakref
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, TrainerBase, create_ddp_model
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from eseg_d2.data.loaders import TestLoader, build_test_loader, build_train_loader
from eseg_d2.data.train_loader import TrainLoader
from eseg_d2.engine.checkpoint import TRAINING_MODEL, SafeCheckpointer, what_is_kept
from eseg_d2.engine.hooks import CheckpointHook, EMAHook, build_hooks
from eseg_d2.engine.output_dir import RECORDS, lock_output_dir, set_aside, write_results
from eseg_d2.engine.provenance import changed_keys, plain_config, record_start
from eseg_d2.engine.rendezvous import is_connection_error
from eseg_d2.engine.signals import StoppableEvaluator, Stopped, finish_iterations
from eseg_d2.engine.train_step import (
    ConfiguredRates,
    NotFiniteError,
    NotFiniteGuard,
    TrainStep,
    build_clipping,
    build_optimizer,
)
from eseg_d2.engine.writers import build_writers
from eseg_d2.evaluation.build import build_evaluator
from eseg_d2.modeling.gpu import checkpoint_gradients, set_precision
from eseg_d2.modeling.test_time_augmentation import SemanticTTA
from eseg_d2.modeling.unused_levels import freeze_unused_levels
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.random_state import set_random_state

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer(TrainerBase):
    """Trains any configured model on any panoptic data set, or any other kind of Detectron2's.

    Use it like Detectron2's ``DefaultTrainer``: call ``Trainer(cfg)``, ``resume_or_load`` and
    ``train``, and override the same class methods to change its parts. It derives from
    ``TrainerBase``, because the rest differs. On a CPU, a run that was killed and resumed gives the
    same losses as an uninterrupted one: checkpoints hold the states of the optimizer, schedule,
    gradient scaler, moving average, random numbers and data order. With MODEL_EMA.ENABLED, the
    moving average of the weights is evaluated and stored as the "model" of the checkpoints, so that
    loading one gives the average; the trained weights are stored as "training_model".

    Attributes:
        cfg: the given config.
        scheduler: scheduler of the learning rates.
        checkpointer: saves the evaluated model and everything that a resumed run needs.
        ema: the hook that averages the weights, or None.
        last_results: results of the last evaluation; empty before the first one.
    """

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: config from :func:`~eseg_d2.config.load_config`.

        Raises:
            ValueError: a value is invalid, or SOLVER.REFERENCE_WORLD_SIZE was not resolved.
        """
        super().__init__()
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        _require_scaled(cfg)
        self.cfg = cfg
        self.last_results: dict = {}
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        freeze_unused_levels(model)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = TrainStep(
            _data_parallel(model),
            optimizer,
            device=torch.device(cfg.MODEL.DEVICE),
            clipping=build_clipping(cfg),
            autocast=getattr(torch, cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None,
            ignore_value=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            can_skip=cfg.SOLVER.MAX_SKIPPED_STEPS > 0,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self._rates = ConfiguredRates(optimizer, self.scheduler)
        self.ema = EMAHook(model, cfg.MODEL_EMA.DECAY) if cfg.MODEL_EMA.ENABLED else None
        self.checkpointer = SafeCheckpointer(
            self.ema.model if self.ema else model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        if self.ema:
            self.checkpointer.add_checkpointable(TRAINING_MODEL, model)
        self._guard = NotFiniteGuard(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_SKIPPED_STEPS)
        self._loader: TrainLoader | None = None  # made when it is known where its order goes on
        self._data_state: dict | None = None
        self._images_per_update_then: int | None = None  # in the run that wrote the checkpoint
        self.data_seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.random_states: list[dict] = []
        self._checkpoints = CheckpointHook(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINTS_TO_KEEP
        )
        self.register_hooks(self.build_hooks())

    @property
    def model(self) -> nn.Module:
        """The model in training, in a DistributedDataParallel if there are several processes."""
        return self._trainer.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._trainer.optimizer

    def build_hooks(self) -> list[HookBase]:
        return build_hooks(self, self._checkpoints)

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.start_iter, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS.

        Args:
            resume: continue from a checkpoint if there is one; log it if there is none.

        Raises:
            ValueError: the weights belong to another model, or the checkpoint has another
                optimizer.
            RunError: none of the checkpoints can be read, or another run uses OUTPUT_DIR.
        """
        lock_output_dir(self.cfg.OUTPUT_DIR)
        self.checkpointer.remove_leftovers()
        has_checkpoint = self.checkpointer.has_checkpoint()
        if resume and has_checkpoint:
            self.start_iter = self._scaled(self.checkpointer.resume()["iteration"] + 1)
            self._rates.restore(min(self.start_iter, self.max_iter))
            if self.ema:
                self.ema.continue_at(self.start_iter)
        else:
            if has_checkpoint:
                logger.warning(
                    "OUTPUT_DIR %s holds checkpoints of an earlier run, which this new run will "
                    "gradually overwrite. (--resume would continue the earlier run.)",
                    self.cfg.OUTPUT_DIR,
                )
            elif resume:
                logger.warning(
                    "OUTPUT_DIR %s holds no checkpoint to resume from: a new run starts.",
                    self.cfg.OUTPUT_DIR,
                )
            summary = self.checkpointer.load_weights(self.cfg.MODEL.WEIGHTS, self.cfg)
            if summary:
                summary.require_similar_model()
            if self.ema:
                self.ema.start_from_average()
        self._loader = self._build_data()

    def _scaled(self, iteration: int) -> int:
        """Return the iteration scaled to this run's number of images per update."""
        now = self.images_per_update
        before = self._images_per_update_then or now
        if before == now or not self.cfg.SOLVER.REFERENCE_WORLD_SIZE:
            return iteration
        scaled = round(iteration * before / now)
        logger.warning(
            "Updates had %d images and now have %d: iteration %d becomes %d, and the learning rate "
            "is scaled linearly",
            before,
            now,
            iteration,
            scaled,
        )
        return scaled

    def _build_data(self) -> TrainLoader:
        loader = build_train_loader(self.cfg, seed=self.data_seed)
        if self._data_state:
            loader.load_state_dict(self._data_state)
        return loader

    def train(self) -> None:
        """Train to MAX_ITER and evaluate; log it if there is nothing left to train.

        Raises:
            Stopped: in all processes, if one of them received a signal; a checkpoint is written.
        """
        if self._loader is None:
            self._loader = self._build_data()
        if self.start_iter >= self.max_iter:
            logger.warning(
                "Nothing to train: the checkpoint has done %d iterations, and SOLVER.MAX_ITER is "
                "%d. Raise it to train on.",
                self.start_iter,
                self.max_iter,
            )
        if comm.is_main_process():
            os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
            if not self.start_iter:
                set_aside(self.cfg.OUTPUT_DIR, RECORDS, "records of an earlier run")
            for sentence in record_start(self.cfg, self.start_iter):
                logger.warning("%s", sentence)
        try:
            with finish_iterations(), _explained_errors_without_traceback():
                super().train(self.start_iter, self.max_iter)
        except Stopped as e:
            name = signal.Signals(e.signal).name
            kept = what_is_kept(self.cfg.OUTPUT_DIR)
            sentence = f"{name} ended the run. {kept} --resume continues from there."
            e.sentence = comm.all_gather(sentence)[0]  # the main process has written it
            logger.warning("%s", e.sentence)
            raise
        if len(self.cfg.TEST.EXPECTED_RESULTS) and comm.is_main_process():
            verify_results(self.cfg, self.last_results)

    def before_train(self) -> None:
        super().before_train()
        assert self._loader is not None  # train has seen to it
        self._batches = iter(self._loader)
        before, now = len(self.random_states), comm.get_world_size()
        if before == now:
            set_random_state(self.random_states[comm.get_rank()])
        elif before:
            text = "The run had %d processes and now has %d: its random numbers start again"
            logger.warning(text, before, now)

    def after_step(self) -> None:
        try:
            super().after_step()
            if self.stop_signal and self.iter + 1 < self.max_iter:
                raise Stopped(self.stop_signal, agreed=True)
        except Stopped:
            self._checkpoints.save()
            raise

    def run_step(self) -> None:
        start = time.perf_counter()
        parts = [next(self._batches) for _ in range(self.cfg.SOLVER.ACCUMULATE_STEPS)]
        data_time = time.perf_counter() - start
        try:
            metrics = self._trainer.run(parts)
        except NotFiniteError as e:
            lr = self.optimizer.param_groups[0]["lr"]
            self._guard.handle(e, parts, iteration=self.iter, lr=lr)
            metrics = {}
        self._record(metrics, data_time)

    def _record(self, metrics: dict[str, float], data_time: float) -> None:
        """Store the means over the processes, and the longest time that one waited for data."""
        assert self._loader is not None  # it has given the batch
        shares = comm.gather((metrics, data_time, self._loader.bad_samples))
        if not comm.is_main_process():
            return
        for _, _, bad_samples in shares:
            for file, reason in list(bad_samples.items()):
                self._loader.count_bad_sample(file, reason)
        self.storage.put_scalar("data_time", max(seconds for _, seconds, _ in shares))
        for name in metrics:
            mean = sum(of_process[name] for of_process, _, _ in shares) / len(shares)
            if math.isfinite(mean):  # a step in mixed precision may overflow
                self.storage.put_scalar(name, mean)

    def evaluate(self) -> dict:
        """Evaluate the model in its current state; see :meth:`test`."""
        self.last_results = self.test(self.cfg, self.evaluated_model)
        return self.last_results

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and saved: the moving average, if there is one."""
        return self.checkpointer.model

    @property
    def stop_signal(self) -> int:
        """The signal that ends the run after this iteration, the same in all processes; or 0."""
        return self._trainer.stop_signal

    @property
    def images_per_update(self) -> int:
        """The number of images over all processes and accumulated parts."""
        return self.cfg.SOLVER.IMS_PER_BATCH * self.cfg.SOLVER.ACCUMULATE_STEPS

    def state_dict(self) -> dict:
        order = self._loader.state_dict() if self._loader else None
        return {
            **super().state_dict(),
            "_trainer": self._trainer.state_dict(),
            "data": {"seed": self.data_seed, "order": order},
            "random_states": self.random_states,
            "skipped_steps": self._guard.skipped,
            "images_per_update": self.images_per_update,
            "config": plain_config(self.cfg),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        state_dict.get("hooks", {}).pop("EMAHook", None)  # duplicate weights of an earlier version
        super().load_state_dict(state_dict)
        now = plain_config(self.cfg)
        changes = changed_keys(state_dict.get("config", now), now)
        if changes:
            logger.warning("Changed since the checkpoint: %s", ", ".join(changes))
        try:
            self._trainer.load_state_dict(state_dict["_trainer"])
        except ValueError as e:
            keys = [key for key in changes if key.startswith(("MODEL.", "SOLVER."))]
            raise ValueError(
                f"the checkpoint's optimizer does not match this config: {e}. These keys of MODEL "
                f"and SOLVER have changed: {', '.join(keys) or 'unknown'}. Restore those that "
                "decide which parameters are frozen or grouped (such as FREEZE_AT, NORM, "
                "WEIGHT_DECAY_NORM, BIAS_LR_FACTOR), or start a new run in another OUTPUT_DIR with "
                "the checkpoint as MODEL.WEIGHTS."
            ) from e
        if "data" not in state_dict:  # written by an earlier version of this project
            logger.warning("The checkpoint holds no data order: the images come in a new order")
            return
        self.data_seed = state_dict["data"]["seed"]
        self._data_state = state_dict["data"]["order"]
        self.random_states = state_dict["random_states"]
        self._guard.skipped = state_dict["skipped_steps"]
        self._images_per_update_then = state_dict["images_per_update"]

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build Detectron2's model, and apply MODEL.CHANNELS_LAST, TF32, GRADIENT_CHECKPOINTING."""
        set_precision(cfg)
        model = build_model(cfg)
        switches = cfg.MODEL.GRADIENT_CHECKPOINTING
        checkpoint_gradients(model, backbone=switches.BACKBONE, bifpn=switches.BIFPN)
        logger.info("Model:\n%s", model)
        layout = torch.channels_last if cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
        return model.to(memory_format=layout)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Build one of Detectron2's schedules, or "WarmupPolyLR" of its DeepLab project."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Build the loader of a new run; a resumed trainer sets its state itself."""
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        return build_train_loader(cfg, seed=seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> TestLoader:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on each of DATASETS.TEST; the main process writes ``results.json``.

        Args:
            cfg, model: config of the run, and the model to evaluate.
            evaluators: one, or one for each data set; None builds them (:meth:`build_evaluator`).

        Returns:
            Detectron2's results by task, or by data set and task if there are several data sets.

        Raises:
            Stopped: in all processes, if one of them received a signal.
        """
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        results = {}
        for name, evaluator in zip(cfg.DATASETS.TEST, evaluators, strict=True):
            loader = cls.build_test_loader(cfg, name)
            results[name] = inference_on_dataset(model, loader, StoppableEvaluator(evaluator))
            if comm.is_main_process():
                logger.info("Results on %s, as csv:", name)
                print_csv_format(results[name])
        results = results.popitem()[1] if len(results) == 1 else results
        if comm.is_main_process():
            write_results(results, os.path.join(cfg.OUTPUT_DIR, "results.json"))
        return results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """Evaluate a semantic model with the test-time augmentation of TEST.AUG.

        Returns:
            The results of :meth:`test`, with tasks named "<task>_TTA". Files go to
            ``OUTPUT_DIR/TTA``.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "TTA")
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        results = cls.test(cfg, SemanticTTA(cfg, model))
        return {f"{task}_TTA": metrics for task, metrics in results.items()}


def _require_scaled(cfg: CfgNode) -> None:
    written_for, size = cfg.SOLVER.REFERENCE_WORLD_SIZE, comm.get_world_size()
    if written_for not in (0, size):
        raise ValueError(
            f"SOLVER.REFERENCE_WORLD_SIZE is {written_for}, but the number of processes is {size}: "
            f"load the config with load_config(..., world_size={size}), which scales it"
        )


def _data_parallel(model: nn.Module) -> nn.Module:
    """Wrap the model in DistributedDataParallel if there are several processes."""
    device = next(model.parameters()).device
    # PyTorch is renaming the argument
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    devices = [device.index] if device.type == "cuda" else None
    return create_ddp_model(model, device_ids=devices, **{buffers: False})


@contextlib.contextmanager
def _explained_errors_without_traceback() -> Iterator[None]:
    """Make Detectron2's loop log errors with a complete message without their traceback."""

    def shorten(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RunError):
            record.msg, record.args, record.exc_info = str(error), (), None
        return error is None or not is_connection_error(error)  # another process logs the cause

    loop = logging.getLogger("detectron2.engine.train_loop")
    loop.addFilter(shorten)
    try:
        yield
    finally:
        loop.removeFilter(shorten)
