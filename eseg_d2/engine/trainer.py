"""One run of training: what is done in which order, and what is kept of it."""

import logging
import math
import os
import signal
import time
import weakref

import torch
from detectron2.engine import HookBase, TrainerBase
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from detectron2.utils.logger import setup_logger
from torch import nn

from eseg_d2.data.loaders import build_train_loader
from eseg_d2.data.train_loader import TrainLoader
from eseg_d2.engine.checkpoint import TRAINING_MODEL, SafeCheckpointer, what_is_kept
from eseg_d2.engine.checkpoint_hook import CheckpointHook
from eseg_d2.engine.configured import ConfiguredTrainer
from eseg_d2.engine.ema import EMAHook
from eseg_d2.engine.gradients import build_clipping
from eseg_d2.engine.hooks import build_hooks
from eseg_d2.engine.not_finite import NotFiniteGuard
from eseg_d2.engine.output_dir import RECORDS, lock_output_dir, set_aside
from eseg_d2.engine.peers import is_connection_error
from eseg_d2.engine.processes import data_parallel, freeze_unused_levels
from eseg_d2.engine.provenance import changed_keys, plain_config, record_start
from eseg_d2.engine.schedule import ConfiguredRates
from eseg_d2.engine.setup import autocast_dtype
from eseg_d2.engine.stopping import Stopped, finish_iterations
from eseg_d2.engine.train_step import NotFiniteError, TrainStep
from eseg_d2.engine.writers import build_writers
from eseg_d2.modeling.backbone.efficientnet import EfficientNet
from eseg_d2.modeling.backbone.efficientnet_weights import load_pretrained
from eseg_d2.utils.errors import RunError
from eseg_d2.utils.random_state import set_random_state

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer(ConfiguredTrainer):
    """Trains any configured model on any panoptic data set (or Detectron2's own kinds).

    Used as Detectron2's: ``Trainer(cfg)``, ``resume_or_load``, ``train``. A run that was killed and
    resumed gives on a CPU the same losses as an undisturbed one: checkpoints hold the states of
    optimizer, schedule, gradient scaler, moving average, random numbers and data order. With
    MODEL_EMA.ENABLED the moving average of the weights is evaluated and is the "model" of the
    checkpoints, so that whoever loads one gets it; the weights in training are "training_model".
    """

    def __init__(self, cfg):
        TrainerBase.__init__(self)  # Detectron2's own builds the data before weights are looked at
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        self.cfg = cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        freeze_unused_levels(model)
        optimizer = self.build_optimizer(cfg, model)
        self._trainer = TrainStep(
            data_parallel(model),
            optimizer,
            device=torch.device(cfg.MODEL.DEVICE),
            clipping=build_clipping(cfg),
            autocast=autocast_dtype(cfg),
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
        self._data_state: dict | None = None
        self._images_per_update_then: int | None = None  # in the run that wrote the checkpoint
        self.data_seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        self.random_states: list[dict] = []
        self._checkpoints = CheckpointHook(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINTS_TO_KEEP
        )
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        return build_hooks(self, self._checkpoints)

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.start_iter, self.max_iter)

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR, or start with the initial weights.

        Those are MODEL.WEIGHTS, else MODEL.EFFICIENTNET.PRETRAINED.

        Args:
            resume: go on, if there is a checkpoint; it is logged if there is none.

        Raises:
            ValueError: the weights are of another model, or the checkpoint is of another optimizer.
            RunError: there are checkpoints to resume from, but none can be read, or another run
                uses OUTPUT_DIR.
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
                    "OUTPUT_DIR %s holds checkpoints of an earlier run, which this new one will "
                    "overwrite as it goes on. (--resume goes on with it.)",
                    self.cfg.OUTPUT_DIR,
                )
            elif resume:
                logger.warning(
                    "OUTPUT_DIR %s holds no checkpoint to resume from: a new run starts.",
                    self.cfg.OUTPUT_DIR,
                )
            self._load_initial_weights()
        self._trainer.data_loader = self._build_data()

    def _scaled(self, iteration: int) -> int:
        """By SOLVER.REFERENCE_WORLD_SIZE more processes make fewer and larger updates."""
        now = self.images_per_update
        before = self._images_per_update_then or now
        if before == now or not self.cfg.SOLVER.REFERENCE_WORLD_SIZE:
            return iteration
        scaled = round(iteration * before / now)
        logger.warning(
            "Updates had %d images and have %d: iteration %d becomes %d, with the learning rate by "
            "the linear rule",
            before,
            now,
            iteration,
            scaled,
        )
        return scaled

    def _load_initial_weights(self) -> None:
        model = self.checkpointer.model
        summary = self.checkpointer.load_weights(self.cfg.MODEL.WEIGHTS)
        if summary:
            summary.require_similar_model()
        elif self.cfg.MODEL.EFFICIENTNET.PRETRAINED:
            for module in model.modules():
                if isinstance(module, EfficientNet):
                    load_pretrained(module, self.cfg)
        if self.ema:
            self.ema.start_from_average()

    def _build_data(self) -> TrainLoader:
        loader = build_train_loader(self.cfg, seed=self.data_seed)
        if self._data_state:
            loader.load_state_dict(self._data_state)
        return loader

    def train(self) -> None:
        """Train to MAX_ITER, evaluating on the way; says so if there is nothing left to train.

        Raises:
            Stopped: in all processes, if one of them has got a signal; a checkpoint is written.
        """
        if self._trainer.data_loader is None:
            self._trainer.data_loader = self._build_data()
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
            with finish_iterations():
                self._loop()
        except Stopped as e:
            name = signal.Signals(e.signal).name
            kept = what_is_kept(self.cfg.OUTPUT_DIR)
            sentence = f"{name} has ended the run. {kept} --resume goes on from there."
            e.sentence = comm.all_gather(sentence)[0]  # the main process has written it
            logger.warning("%s", e.sentence)
            raise
        if len(self.cfg.TEST.EXPECTED_RESULTS) and comm.is_main_process():
            verify_results(self.cfg, self.last_results)

    def _loop(self) -> None:
        """Detectron2's loop; errors that say all there is to say are not logged as tracebacks."""
        logger.info("Starting training from iteration %d", self.start_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                self._batches = iter(self._trainer.data_loader)
                if self.random_states:
                    self._set_random_state()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.stop_signal and self.iter + 1 < self.max_iter:
                        raise Stopped(self.stop_signal, agreed=True)
                    self.iter += 1
            except Stopped:
                self._checkpoints.save()
                raise
            except RunError as e:
                logger.error("%s", e)
                raise
            except Exception as e:
                if not is_connection_error(e):  # another process says what has happened
                    logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def run_step(self) -> None:
        start = time.perf_counter()
        parts = [next(self._batches) for _ in range(self.cfg.SOLVER.ACCUMULATE_STEPS)]
        data_time = time.perf_counter() - start
        try:
            figures = self._trainer.run(parts)
        except NotFiniteError as e:
            lr = self.optimizer.param_groups[0]["lr"]
            self._guard.handle(e, parts, iteration=self.iter, lr=lr)
            figures = {}
        self._record(figures, data_time)

    def _record(self, figures: dict[str, float], data_time: float) -> None:
        """Scalars of this iteration: means over the processes, and the longest wait for data."""
        loader = self._trainer.data_loader
        shares = comm.gather((figures, data_time, loader.bad_samples))
        if not comm.is_main_process():
            return
        for _, _, bad_samples in shares:
            for file, reason in list(bad_samples.items()):
                loader.count_bad_sample(file, reason)
        self.storage.put_scalar("data_time", max(seconds for _, seconds, _ in shares))
        for name in figures:
            mean = sum(of_process[name] for of_process, _, _ in shares) / len(shares)
            if math.isfinite(mean):  # a step in mixed precision may overflow
                self.storage.put_scalar(name, mean)

    def evaluate(self) -> dict:
        """:meth:`test` of the model as it is now."""
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

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
        """Of all processes and accumulated parts."""
        return self.cfg.SOLVER.IMS_PER_BATCH * self.cfg.SOLVER.ACCUMULATE_STEPS

    @property
    def last_results(self) -> dict:
        """Results of the last evaluation; empty before there is one."""
        return getattr(self, "_last_eval_results", {})

    def state_dict(self) -> dict:
        loader = self._trainer.data_loader
        return {
            **TrainerBase.state_dict(self),
            "_trainer": self._trainer.state_dict(),
            "data": {"seed": self.data_seed, "order": loader.state_dict() if loader else None},
            "random_states": self.random_states,
            "skipped_steps": self._guard.skipped,
            "images_per_update": self.images_per_update,
            "config": plain_config(self.cfg),
        }

    def load_state_dict(self, state_dict: dict) -> None:
        state_dict.get("hooks", {}).pop("EMAHook", None)  # of an earlier version: weights twice
        TrainerBase.load_state_dict(self, state_dict)
        now = plain_config(self.cfg)
        changes = changed_keys(state_dict.get("config", now), now)
        if changes:
            logger.warning("Changed since the checkpoint: %s", ", ".join(changes))
        try:
            self._trainer.load_state_dict(state_dict["_trainer"])
        except ValueError as e:
            keys = [key for key in changes if key.startswith(("MODEL.", "SOLVER."))]
            raise ValueError(
                f"the checkpoint's optimizer is not the one of this config: {e}. Of MODEL and "
                f"SOLVER these keys have changed: {', '.join(keys) or 'unknown'}. Set back those "
                "by which parameters are frozen or grouped (FREEZE_AT, NORM, WEIGHT_DECAY_NORM, "
                "BIAS_LR_FACTOR and the like), or start a new run in another OUTPUT_DIR with the "
                "checkpoint as MODEL.WEIGHTS."
            ) from e
        if "data" not in state_dict:  # written by an earlier version of this project
            logger.warning("The checkpoint does not say which images came next: a new order begins")
            return
        self.data_seed = state_dict["data"]["seed"]
        self._data_state = state_dict["data"]["order"]
        self.random_states = state_dict["random_states"]
        self._guard.skipped = state_dict["skipped_steps"]
        self._images_per_update_then = state_dict["images_per_update"]

    def _set_random_state(self) -> None:
        rank = comm.get_rank()
        if len(self.random_states) != comm.get_world_size():
            logger.warning(
                "The run had %d processes and has %d: its random numbers begin anew",
                len(self.random_states),
                comm.get_world_size(),
            )
            return
        set_random_state(self.random_states[rank])
