"""Detectron2's DefaultTrainer with this project's data and evaluation."""

import json
import math
import os

import torch
from detectron2.data import (
    MetadataCatalog,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.engine.ema import EMAHook
from eseg_d2.evaluation.build import build_evaluator
from eseg_d2.modeling.backbone.efficientnet import EfficientNet, load_pretrained
from eseg_d2.modeling.test_time_augmentation import SemanticTTA

__all__ = ["Trainer", "write_results"]


class Trainer(DefaultTrainer):
    """Trains any configured model on any panoptic data set (or Detectron2's own kinds).

    Evaluation results go to ``OUTPUT_DIR/results.json`` as well, and checkpoints hold the
    optimizer's state, which Detectron2 0.6 forgets. With MODEL_EMA.ENABLED the moving average of
    the weights is evaluated and is the "model" of the checkpoints, so that whoever loads one gets
    it; the weights in training are "training_model" there.
    """

    def __init__(self, cfg):
        self.ema = None
        super().__init__(cfg)
        if cfg.MODEL_EMA.ENABLED:
            self._add_ema(cfg.MODEL_EMA.DECAY)

    def _add_ema(self, decay: float) -> None:
        trained = self.model
        if isinstance(trained, DistributedDataParallel):
            trained = trained.module
        self.ema = EMAHook(trained, decay)
        self.checkpointer.model = self.ema.model
        self.checkpointer.add_checkpointable("training_model", self.ema)
        self.register_hooks([self.ema])
        self._hooks.insert(0, self._hooks.pop())  # before what evaluates and saves

    def build_hooks(self) -> list:
        evaluation = hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate)
        return [
            evaluation if isinstance(hook, hooks.EvalHook) else hook
            for hook in super().build_hooks()
        ]

    def _evaluate(self) -> dict:
        self._last_eval_results = self.test(self.cfg, self.evaluated_model)
        return self._last_eval_results

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's; a new run without MODEL.WEIGHTS loads MODEL.EFFICIENTNET.PRETRAINED."""
        super().resume_or_load(resume)
        resumed = resume and self.checkpointer.has_checkpoint()
        options = self.cfg.MODEL.EFFICIENTNET
        if options.PRETRAINED and not resumed and not self.cfg.MODEL.WEIGHTS:
            for module in self.checkpointer.model.modules():
                if isinstance(module, EfficientNet):
                    load_pretrained(module, options.NAME, options.PRETRAINED)
        if self.ema and resumed:
            self.ema.continue_at(self.start_iter)
        elif self.ema:
            self.ema.start_from_average()

    @classmethod
    def build_model(cls, cfg):
        """Detectron2's, in the memory format of MODEL.CHANNELS_LAST."""
        model = super().build_model(cfg)
        layout = torch.channels_last if cfg.MODEL.CHANNELS_LAST else torch.contiguous_format
        return model.to(memory_format=layout)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Detectron2's, with one group for all parameters of equal settings.

        Detectron2 0.6 makes a group of each parameter, and PyTorch updates group by group: hundreds
        of small calls in place of a few.
        """
        optimizer = super().build_optimizer(cfg, model)
        groups = {}
        for group in optimizer.param_groups:
            settings = tuple((key, value) for key, value in group.items() if key != "params")
            groups.setdefault(settings, {**group, "params": []})["params"] += group["params"]
        optimizer.param_groups = list(groups.values())
        return optimizer

    @classmethod
    def build_train_loader(cls, cfg):
        name = cfg.DATASETS.TRAIN[0]
        mapper = None  # Detectron2's own
        if MetadataCatalog.get(name).get("panoptic_json"):
            mapper = PanopticMapper(cfg, name)
        return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name: str) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        """Detectron2's schedules, and "WarmupPolyLR" of its DeepLab project."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """As Detectron2's, and the main process writes the results to ``results.json``."""
        results = super().test(cfg, model, evaluators)
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

    @property
    def evaluated_model(self):
        """The model that is evaluated and saved: the moving average, if there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def last_results(self) -> dict:
        """Results of the last evaluation; empty before there is one."""
        return getattr(self, "_last_eval_results", {})

    def state_dict(self) -> dict:
        state = super().state_dict()
        state["_trainer"] = self._trainer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])


def write_results(results: dict, path: str) -> None:
    """Write Detectron2's dictionary of results as strict json: NaN becomes null.

    Args:
        results: nested dicts of numbers.
        path: of the json file; its folder must exist.
    """

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        return None if math.isnan(value) else float(value)

    with open(path, "w") as f:
        json.dump(plain(results), f, indent=1)
