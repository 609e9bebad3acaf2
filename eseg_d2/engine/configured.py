"""What a configuration's trainer is made of: model, optimizer, data, evaluation."""

import os

import torch
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm

from eseg_d2.data.build import build_test_loader, build_train_loader
from eseg_d2.data.train_loader import TrainLoader
from eseg_d2.engine.results import write_results
from eseg_d2.engine.stopping import StoppableEvaluator
from eseg_d2.evaluation.build import build_evaluator
from eseg_d2.modeling.gpu import checkpoint_gradients, set_precision
from eseg_d2.modeling.test_time_augmentation import SemanticTTA

__all__ = ["ConfiguredTrainer"]


class ConfiguredTrainer(DefaultTrainer):
    """Detectron2's factories for any configured model on any data set; override as there.

    Evaluation needs no instance: ``ConfiguredTrainer.test(cfg, model)``.
    """

    @classmethod
    def build_model(cls, cfg):
        """Build Detectron2's, with MODEL.CHANNELS_LAST, TF32 and GRADIENT_CHECKPOINTING."""
        set_precision(cfg)
        model = super().build_model(cfg)
        switches = cfg.MODEL.GRADIENT_CHECKPOINTING
        checkpoint_gradients(model, backbone=switches.BACKBONE, bifpn=switches.BIFPN)
        layout = torch.channels_last if cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
        return model.to(memory_format=layout)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Detectron2's, with one group for all parameters of equal settings, and no clipping.

        Detectron2 0.6 makes a group of each parameter, and PyTorch updates group by group: hundreds
        of small calls in place of a few. Gradients are clipped before the update, all at once.
        The groups name their parameters ("param_names"), so that checkpoints do, too.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
        optimizer = super().build_optimizer(cfg, model)
        groups = {}
        for group in optimizer.param_groups:
            settings = tuple((key, value) for key, value in group.items() if key != "params")
            groups.setdefault(settings, {**group, "params": []})["params"] += group["params"]
        names = {parameter: name for name, parameter in model.named_parameters()}
        for group in groups.values():
            group["param_names"] = [names[parameter] for parameter in group["params"]]
        optimizer.param_groups = list(groups.values())
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg) -> TrainLoader:
        """The loader of a new run; the trainer itself makes one that goes on where it was."""
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        return build_train_loader(cfg, seed=seed)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name: str):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        """Detectron2's schedules, and "WarmupPolyLR" of its DeepLab project."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """Evaluate on each of DATASETS.TEST; the main process writes ``results.json``.

        Raises:
            Stopped: in all processes, if one of them has got a signal.
        """
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        results = super().test(cfg, model, [StoppableEvaluator(e) for e in evaluators])
        if comm.is_main_process():
            write_results(results, os.path.join(cfg.OUTPUT_DIR, "results.json"))
        return results

    @classmethod
    def test_with_TTA(cls, cfg, model) -> dict:
        """Evaluate a semantic model with test-time augmentation, by the keys of TEST.AUG.

        Returns:
            As :meth:`test`, each task named "<task>_TTA". Files go to ``OUTPUT_DIR/TTA``.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "TTA")
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        results = cls.test(cfg, SemanticTTA(cfg, model))
        return {f"{task}_TTA": figures for task, figures in results.items()}
