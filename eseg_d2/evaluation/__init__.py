"""Evaluators of panoptic, semantic and instance segmentation."""

from eseg_d2.evaluation.build import build_evaluator
from eseg_d2.evaluation.cityscapes import CityscapesOfficialEvaluator
from eseg_d2.evaluation.instance import APEvaluator, InstanceEvaluator
from eseg_d2.evaluation.panoptic_quality import PanopticQualityEvaluator
from eseg_d2.evaluation.prediction_files import PredictionWriter
from eseg_d2.evaluation.semantic import SemanticEvaluator

__all__ = [
    "APEvaluator",
    "CityscapesOfficialEvaluator",
    "InstanceEvaluator",
    "PanopticQualityEvaluator",
    "PredictionWriter",
    "SemanticEvaluator",
    "build_evaluator",
]
