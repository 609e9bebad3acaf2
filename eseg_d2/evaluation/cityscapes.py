"""Cityscapes' own scores, computed by cityscapesscripts from prediction files."""

import contextlib
import io
import logging
import math
import os
from unittest import mock

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from tabulate import tabulate

from eseg_d2.evaluation.prediction_files import PANOPTIC_JSON, PredictionWriter

__all__ = ["CityscapesOfficialEvaluator"]

logger = logging.getLogger(__name__)


class CityscapesOfficialEvaluator(PredictionWriter):
    """Writes the predictions of a Cityscapes data set and has cityscapesscripts score the files.

    Works with every Detectron2; the Cityscapes evaluators of its main branch import a module
    internal to Meta. Needs ``gtFine`` as published (``*_labelIds.png``, ``*_instanceIds.png``).
    """

    def process(self, inputs, outputs) -> None:
        """As the writer's, and notes what kinds of predictions there are."""
        super().process(inputs, outputs)
        for output in outputs:
            self._kinds |= {"panoptic_seg", "sem_seg", "instances"} & output.keys()

    def reset(self) -> None:
        super().reset()
        self._kinds = set()

    def evaluate(self) -> dict | None:
        """``{"cityscapes": {...}}`` in percent, in the main process.

        ``IoU``, ``iIoU``, ``IoU_sup``, ``iIoU_sup`` of pixels; ``AP``, ``AP50`` of instances;
        ``PQ``, ``SQ``, ``RQ`` and the same with ``_th`` and ``_st``. A figure that
        cityscapesscripts cannot compute, as no class of its kind occurs, is NaN.
        """
        super().evaluate()
        kinds = set.union(*comm.all_gather(self._kinds)) if self._distributed else self._kinds
        if not comm.is_main_process():
            return None
        logger.info(f"cityscapesscripts scores {self._output_dir}; this takes a while")
        scores = {}
        # cityscapesscripts 2.3 uses a function that NumPy 2.4 has no more
        in1d = mock.patch.object(np, "in1d", np.isin, create=True)
        with contextlib.redirect_stdout(io.StringIO()), in1d:
            if "sem_seg" in kinds:
                scores |= self._pixel_scores()
            if "instances" in kinds:
                scores |= self._instance_scores()
            if "panoptic_seg" in kinds:
                scores |= self._panoptic_scores()
        rows = [[name, value] for name, value in scores.items()]
        table = tabulate(rows, headers=["cityscapesscripts", "%"], tablefmt="pipe", floatfmt=".3f")
        logger.info("Official evaluation:\n" + table)
        return {"cityscapes": scores}

    def _pairs(self, kind: str, suffix: str, truth_suffix: str) -> tuple[list[str], list[str]]:
        """Files of the predictions and of the truth, image by image."""
        gt_dir = MetadataCatalog.get(self._dataset_name).gt_dir
        predictions, truths = [], []
        for record in self._truth.records.values():
            stem = os.path.splitext(self._name(record))[0]
            predictions.append(os.path.join(self._output_dir, kind, stem + suffix))
            image = os.path.basename(record["file_name"]).removesuffix("_leftImg8bit.png")
            truths.append(os.path.join(gt_dir, image.split("_")[0], image + truth_suffix))
        missing = [path for path in [*predictions, *truths] if not os.path.exists(path)]
        if missing:
            raise FileNotFoundError(
                f"the official evaluation of {self._dataset_name} needs {missing[0]} and "
                f"{len(missing) - 1} more files that are not there. Unpack gtFine as published, "
                "or set TEST.OFFICIAL_CITYSCAPES False."
            )
        return predictions, truths

    def _pixel_scores(self) -> dict[str, float]:
        from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

        pairs = self._pairs("semantic", ".png", "_gtFine_labelIds.png")
        args = _arguments(official, self._output_dir)
        results = official.evaluateImgLists(*pairs, args)
        return {
            "IoU": 100 * results["averageScoreClasses"],
            "iIoU": 100 * results["averageScoreInstClasses"],
            "IoU_sup": 100 * results["averageScoreCategories"],
            "iIoU_sup": 100 * results["averageScoreInstCategories"],
        }

    def _instance_scores(self) -> dict[str, float]:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official

        pairs = self._pairs("instance", ".txt", "_gtFine_instanceIds.png")
        args = _arguments(official, self._output_dir)
        # else it writes the truth's instances and the matches, the latter where the user stands
        args.gtInstancesFile = ""
        with mock.patch.object(official, "writeDict2JSON"):
            results = official.evaluateImgLists(*pairs, args)["averages"]
        return {"AP": 100 * results["allAp"], "AP50": 100 * results["allAp50%"]}

    def _panoptic_scores(self) -> dict[str, float]:
        from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic

        metadata = MetadataCatalog.get(self._dataset_name)
        predictions = os.path.abspath(self._output_dir)
        keys = {"All": "", "Things": "_th", "Stuff": "_st"}
        try:
            results = evaluatePanoptic(
                metadata.panoptic_json,
                metadata.panoptic_root,
                os.path.join(predictions, PANOPTIC_JSON),
                os.path.join(predictions, "panoptic"),
                os.path.join(predictions, "official_panoptic.json"),
            )
        except ZeroDivisionError:  # neither truth nor prediction has a thing, or any stuff
            return {f + suffix: math.nan for suffix in keys.values() for f in ("PQ", "SQ", "RQ")}
        return {
            figure.upper() + suffix: 100 * results[key][figure]
            for key, suffix in keys.items()
            for figure in ("pq", "sq", "rq")
        }


def _arguments(official, output_dir: str):
    """The module's own settings, quiet and writing no json."""
    args = official.args
    args.predictionPath = os.path.abspath(output_dir)
    args.JSONOutput, args.colorized, args.quiet = False, False, True
    return args
