"""Which evaluators a data set and a model need."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.evaluation.cityscapes import CityscapesOfficialEvaluator
from eseg_d2.evaluation.instance import APEvaluator, InstanceEvaluator
from eseg_d2.evaluation.panoptic_quality import PanopticQualityEvaluator
from eseg_d2.evaluation.prediction_files import PredictionWriter
from eseg_d2.evaluation.semantic import SemanticEvaluator

__all__ = ["build_evaluator"]


def build_evaluator(cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
    """Return the evaluators for what the configured model predicts on the data set.

    Panoptic data sets: PQ, mIoU and AP for panoptic models, mIoU for semantic ones, AP for
    instance ones; with TEST.SAVE_PREDICTIONS or TEST.OFFICIAL_CITYSCAPES what these ask for.
    Other data sets: Detectron2's evaluator of their kind.

    Args:
        cfg: MODEL.META_ARCHITECTURE, MODEL.PANOPTIC, TEST and OUTPUT_DIR are read.
        dataset_name: a registered data set.

    Raises:
        ValueError: the data set is of a kind that nothing here evaluates.
    """
    metadata = MetadataCatalog.get(dataset_name)
    output_dir = os.path.join(cfg.OUTPUT_DIR, "inference")
    if not is_panoptic(dataset_name):
        return _detectron2_evaluator(dataset_name, metadata.get("evaluator_type"), output_dir)

    def instance() -> DatasetEvaluator:
        if metadata.get("json_file") and os.path.exists(metadata.json_file):
            # the data set's own instance annotations, as for COCO's published numbers
            return APEvaluator(dataset_name, output_dir=output_dir)
        return InstanceEvaluator(dataset_name, output_dir=output_dir)

    def semantic() -> DatasetEvaluator:
        classes = cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
        return SemanticEvaluator(dataset_name, semantic_classes=classes, output_dir=output_dir)

    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        evaluators = [semantic()]
    elif cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        evaluators = [instance()]
    else:
        panoptic = PanopticQualityEvaluator(dataset_name, output_dir=output_dir)
        evaluators = [panoptic, semantic(), instance()]
    return DatasetEvaluators(evaluators + _prediction_files(cfg, dataset_name, metadata))


def _prediction_files(
    cfg: CfgNode, dataset_name: str, metadata: Metadata
) -> list[DatasetEvaluator]:
    is_cityscapes = metadata.get("evaluator_type") == "cityscapes_panoptic_seg"
    if cfg.TEST.OFFICIAL_CITYSCAPES and is_cityscapes:
        kind = CityscapesOfficialEvaluator
    elif cfg.TEST.SAVE_PREDICTIONS:
        kind = PredictionWriter
    else:
        return []
    folder = os.path.join(cfg.OUTPUT_DIR, "inference", "predictions", dataset_name)
    classes = cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
    return [kind(dataset_name, output_dir=folder, semantic_classes=classes)]


def _detectron2_evaluator(dataset_name: str, kind: str | None, output_dir: str) -> DatasetEvaluator:
    if kind == "sem_seg":
        return SemSegEvaluator(dataset_name, output_dir=output_dir)
    if kind == "coco":
        return COCOEvaluator(dataset_name, output_dir=output_dir)
    raise ValueError(
        f"data set {dataset_name!r} has the evaluator_type {kind!r}; this project evaluates "
        "panoptic data sets (with panoptic_json in the metadata), 'sem_seg' and 'coco'"
    )
