"""One update of the weights: optimizer, accumulation, mixed precision, non-finite losses."""

import contextlib
import copy
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.utils import comm
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from eseg_d2.engine.checkpoint import what_is_kept
from eseg_d2.engine.signals import requested
from eseg_d2.modeling.sem_seg.head import SemanticHead
from eseg_d2.utils.errors import RunError, check_choice, listing

__all__ = [
    "ConfiguredRates",
    "NotFiniteError",
    "NotFiniteGuard",
    "TrainStep",
    "build_clipping",
    "build_optimizer",
    "gradient_norm",
]

logger = logging.getLogger(__name__)

Clipping = Callable[[list[nn.Parameter]], None]
Losses = Mapping[str, torch.Tensor]
# Every step that overflows in mixed precision halves the scale from 65536; below this value the
# overflow is not the scale's fault.
MIN_SCALE = 2.0**-14


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build Detectron2's optimizer, without clipping; see :func:`build_clipping`.

    The groups name their parameters ("param_names"), and so do checkpoints.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_detectron2_optimizer(cfg, model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        group["param_names"] = [names[parameter] for parameter in group["params"]]
    return optimizer


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the 2-norm of all gradients together, a scalar; 0 if there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def build_clipping(cfg: CfgNode) -> Clipping | None:
    """Return the clipping that SOLVER.CLIP_GRADIENTS asks for, or None.

    "value" and "norm" (of each parameter) equal Detectron2's, but clip all parameters at once;
    "full_model" clips the norm of all gradients together, as most projects on Detectron2 do.

    Raises:
        ValueError: CLIP_TYPE is unknown.
    """
    options = cfg.SOLVER.CLIP_GRADIENTS
    if not options.ENABLED:
        return None
    check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", options.CLIP_TYPE, tuple(_KINDS))
    clip, limit, order = _KINDS[options.CLIP_TYPE], options.CLIP_VALUE, options.NORM_TYPE
    return lambda parameters: clip([p for p in parameters if p.grad is not None], limit, order)


def _by_value(parameters: list, limit: float, order: float) -> None:
    torch.nn.utils.clip_grad_value_(parameters, limit)


def _by_norm(parameters: list, limit: float, order: float) -> None:
    gradients = [p.grad for p in parameters]
    norms = torch._foreach_norm(gradients, order)
    factors = torch.clamp(limit / (torch.stack(norms) + 1e-6), max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


def _by_full_norm(parameters: list, limit: float, order: float) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, limit, norm_type=order)


_KINDS = {"value": _by_value, "norm": _by_norm, "full_model": _by_full_norm}


class ConfiguredRates:
    """Restores the settings of a new optimizer and its scheduler after a checkpoint was loaded.

    Checkpoints hold the rates, decays and schedule of the run that wrote them, which PyTorch would
    use: a SOLVER.BASE_LR that was changed for the resumed run would have no effect, and a larger
    SOLVER.MAX_ITER would lead beyond the end of a polynomial schedule.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler: LRScheduler):
        self._optimizer, self._scheduler = optimizer, scheduler
        state = copy.deepcopy(scheduler.state_dict())
        self._schedule = {key: value for key, value in state.items() if not key.startswith("_")}
        self._settings = [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in optimizer.param_groups
        ]

    def restore(self, iteration: int) -> None:
        """Set the rates and the schedule for the next iteration."""
        before = [group["lr"] for group in self._optimizer.param_groups]
        for group, settings in zip(self._optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        self._scheduler.load_state_dict({**copy.deepcopy(self._schedule), "last_epoch": iteration})
        rates = self._scheduler.get_lr()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if rates != before:
            logger.warning(
                "The learning rate is %.5g from here on, as this config says; the checkpoint's "
                "was %.5g",
                rates[0],
                before[0],
            )


class NotFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite; the weights are unchanged.

    Attributes:
        metrics: the losses of this process by name, or the norm of the gradients.
    """

    def __init__(self, metrics: Mapping[str, float]):
        super().__init__(", ".join(f"{name} {value:.5g}" for name, value in metrics.items()))
        self.metrics = dict(metrics)


class NotFiniteGuard:
    """Skips a limited number of steps, then ends the run; names the images of each step.

    Attributes:
        skipped: number of steps skipped so far.
    """

    def __init__(self, output_dir: str, max_skipped: int):
        self._output_dir, self._max_skipped = output_dir, max_skipped
        self.skipped = 0

    def handle(
        self, error: NotFiniteError, parts: Sequence[list[dict]], *, iteration: int, lr: float
    ) -> None:
        """Log a step that was skipped, or end the run. Call it in all processes.

        Args:
            error: error of this process.
            parts: its share of the batch.
            iteration, lr: iteration, from 0, and its learning rate.

        Raises:
            RunError: too many steps have been skipped.
        """
        files = [sample.get("file_name", "?") for part in parts for sample in part]
        reports = comm.all_gather((str(error), files))
        metrics = "; ".join(dict.fromkeys(metrics for metrics, _ in reports))
        images = listing([file for _, files in reports for file in files], limit=64)
        message = (
            f"loss or gradient not finite at iteration {iteration} (lr {lr:.5g}): {metrics}.\n"
            f"  Images of the batch: {images}"
        )
        self.skipped += 1
        if self.skipped <= self._max_skipped:
            logger.warning(
                "%s\n  The step is skipped, %d of SOLVER.MAX_SKIPPED_STEPS %d",
                message,
                self.skipped,
                self._max_skipped,
            )
            return
        last = what_is_kept(self._output_dir, "last good")
        raise RunError(
            f"{message}\n  {last} Look at these images (tools/check_dataset.py, "
            "tools/browse_dataset.py), or lower SOLVER.BASE_LR, raise SOLVER.WARMUP_ITERS, or set "
            "SOLVER.CLIP_GRADIENTS.ENABLED True; then continue with --resume. "
            f"SOLVER.MAX_SKIPPED_STEPS (now {self._max_skipped}) lets a run skip such steps."
        )


class TrainStep:
    """Forward and backward of all parts of a batch, then one update.

    Attributes:
        model, optimizer: as given.
        stop_signal: signal that one of the processes received, or 0; equal in all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        clipping: Clipping | None = None,
        autocast: torch.dtype | None = None,
        ignore_value: int = 255,
        can_skip: bool = False,
    ):
        """
        Args:
            model: returns a dict of losses in training; may be a DistributedDataParallel.
            optimizer: optimizer of its parameters.
            device: device of the model.
            clipping: clips the gradients before the update.
            autocast: torch.float16 or torch.bfloat16 for mixed precision.
            ignore_value: value of the pixels of ``sem_seg`` that do not count.
            can_skip: also restore the model's running statistics after a NotFiniteError.
        """
        model.train()
        self.model, self.optimizer = model, optimizer
        self.stop_signal = 0
        self._device, self._clipping, self._autocast = device, clipping, autocast
        self._ignore_value, self._can_skip = ignore_value, can_skip
        self._heads = [m for m in model.modules() if isinstance(m, SemanticHead)]
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(device.type, enabled=autocast == torch.float16)

    def run(self, parts: Sequence[list[dict]]) -> dict[str, float]:
        """Update the weights once.

        Args:
            parts: this process's share of the batch, in one or several lists of samples.

        Returns:
            The mean of each loss over the parts, ``total_loss``, and ``grad_norm``, the 2-norm of
            all gradients before clipping.

        Raises:
            NotFiniteError: in all processes, if a loss or gradient is not finite in one.
        """
        buffers = self.model.buffers() if self._can_skip else ()
        before = [(buffer, buffer.clone()) for buffer in buffers]
        self.optimizer.zero_grad()
        try:
            self._set_pixel_count(self._mean_pixel_count(parts))
            metrics = self._accumulate(parts)
            metrics["grad_norm"] = self._update()
        except NotFiniteError:
            self.optimizer.zero_grad()
            for buffer, value in before:
                buffer.copy_(value)
            raise
        finally:
            self._set_pixel_count(None)
        return metrics

    def state_dict(self) -> dict:
        """Return the states of the optimizer and the gradient scaler."""
        scaler = self._scaler.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "grad_scaler": scaler}

    def load_state_dict(self, state: dict) -> None:
        """Load the states of the optimizer and the gradient scaler.

        Raises:
            ValueError: the saved optimizer has other groups of parameters.
        """
        saved = [group.get("param_names") for group in state["optimizer"]["param_groups"]]
        own = [group.get("param_names") for group in self.optimizer.param_groups]
        if None not in saved and saved != own:
            raise ValueError("its groups hold other parameters")
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("grad_scaler"):
            self._scaler.load_state_dict(state["grad_scaler"])

    def _accumulate(self, parts: Sequence[list[dict]]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            with self._synchronized(is_last):
                with torch.autocast(
                    self._device.type, self._autocast, enabled=self._autocast is not None
                ):
                    losses = _as_dict(self.model(part))
                total = reduce(torch.add, losses.values())
                values = torch.stack([*losses.values(), total]).detach().float().tolist()
                metrics = dict(zip([*losses, "total_loss"], values, strict=True))
                self._require_finite(metrics)
                self._scaler.scale(total / len(parts)).backward()
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value / len(parts) for name, value in sums.items()}

    def _update(self) -> float:
        self._scaler.unscale_(self.optimizer)
        norm = float(gradient_norm(self._parameters))
        if not self._scaler.is_enabled():  # an enabled scaler skips the step and lowers its scale
            self._require_finite({"grad_norm": norm})
        if self._clipping:
            self._clipping(self._parameters)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._scaler.is_enabled() and self._scaler.get_scale() < MIN_SCALE:
            raise NotFiniteError({"grad_norm": norm})
        return norm

    def _synchronized(self, is_last: bool) -> contextlib.AbstractContextManager:
        """Return a context in which gradients are exchanged only with the last part."""
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    def _require_finite(self, metrics: Mapping[str, float]) -> None:
        """Raise if a value is not finite in any process; also update ``stop_signal``."""
        finite, self.stop_signal = math.isfinite(sum(metrics.values())), requested()
        if comm.get_world_size() > 1:
            shared = torch.tensor([not finite, self.stop_signal], device=self._device)
            distributed.all_reduce(shared, distributed.ReduceOp.MAX)
            not_finite, self.stop_signal = shared.tolist()
            finite = not not_finite
        if not finite:
            raise NotFiniteError(metrics)

    def _mean_pixel_count(self, parts: Sequence[list[dict]]) -> float | None:
        """Return the mean number of valid pixels over all parts and processes; None if only one."""
        world_size = comm.get_world_size()
        maps = [sample["sem_seg"] for part in parts for sample in part if "sem_seg" in sample]
        if (world_size == 1 and len(parts) == 1) or not maps:
            return None
        count: float = sum(int((labels != self._ignore_value).sum()) for labels in maps)
        if world_size > 1:
            shared = torch.tensor(float(count), dtype=torch.float64, device=self._device)
            distributed.all_reduce(shared)
            count = float(shared)
        return count / (len(parts) * world_size)

    def _set_pixel_count(self, count: float | None) -> None:
        for head in self._heads:
            head.pixel_count = count


def _as_dict(losses: Losses | torch.Tensor) -> Losses:
    return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses
