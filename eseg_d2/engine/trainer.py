"""Detectron2's DefaultTrainer with this project's data and evaluation."""

import json
import math
import os

from detectron2.data import (
    MetadataCatalog,
    build_detection_train_loader,
)
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm

from eseg_d2.data.mapper import PanopticMapper
from eseg_d2.evaluation.build import build_evaluator

__all__ = ["Trainer", "write_results"]


class Trainer(DefaultTrainer):
    """Trains any configured model on any panoptic data set (or Detectron2's own kinds).

    Evaluation results go to ``OUTPUT_DIR/results.json`` as well, and checkpoints hold the
    optimizer's state, which Detectron2 0.6 forgets.
    """

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
