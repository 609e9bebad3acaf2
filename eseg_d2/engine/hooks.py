"""The hooks of a run, in the order in which they are called."""

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules

from eseg_d2.engine.checkpoint_hook import CheckpointHook
from eseg_d2.engine.evaluation_hook import EvaluationHook
from eseg_d2.engine.history_hook import HistoryHook
from eseg_d2.engine.progress_hook import ProgressHook
from eseg_d2.engine.throughput_hook import ThroughputHook
from eseg_d2.engine.validation_loss import ValidationLossHook
from eseg_d2.engine.writers import WriterHook

__all__ = ["build_hooks"]


def build_hooks(trainer, checkpoints: CheckpointHook) -> list[HookBase]:
    """What happens around the steps of a :class:`~eseg_d2.engine.Trainer`.

    Args:
        trainer: built, but for its hooks.
        checkpoints: its own, which also saves when a signal ends the run.

    Raises:
        ValueError: a key has a value that its hook refuses.
    """
    cfg = trainer.cfg
    device = next(trainer.model.parameters()).device
    built = [
        trainer.ema,  # first: what follows evaluates and saves it
        hooks.IterationTimer(),
        ThroughputHook(trainer.images_per_update, device),
        hooks.LRScheduler(),
        _precise_bn(trainer),
        _validation_loss(trainer),
        HistoryHook(f"{cfg.OUTPUT_DIR}/metrics.json"),
        checkpoints,
        # after the checkpoint: if it fails, nothing is lost
        EvaluationHook(
            trainer.evaluate,
            trainer.checkpointer,
            period=cfg.TEST.EVAL_PERIOD,
            best_metrics=cfg.TEST.BEST_METRICS,
        ),
    ]
    if comm.is_main_process():
        built += [
            WriterHook(
                trainer.build_writers,
                period=cfg.LOGGING.PERIOD,
                eval_period=cfg.TEST.EVAL_PERIOD,
            ),
            ProgressHook(),
        ]
    return [hook for hook in built if hook is not None]


def _precise_bn(trainer) -> HookBase | None:
    cfg = trainer.cfg
    model = trainer.evaluated_model  # its statistics are those that are used
    if not (cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(model)):
        return None
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # as Detectron2: it is used rarely
    loader = trainer.build_train_loader(cfg)
    return hooks.PreciseBN(cfg.TEST.EVAL_PERIOD, model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)


def _validation_loss(trainer) -> HookBase | None:
    cfg = trainer.cfg
    if not cfg.TEST.VALIDATION_LOSS.ENABLED:
        return None
    num_images = cfg.TEST.VALIDATION_LOSS.NUM_IMAGES
    return ValidationLossHook(cfg, trainer.evaluated_model, cfg.TEST.EVAL_PERIOD, num_images)
