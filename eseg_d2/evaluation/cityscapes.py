"""Cityscapes' own scores, computed by cityscapesscripts from prediction files."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from tabulate import tabulate

from eseg_d2.evaluation.prediction_files import PANOPTIC_JSON, PredictionWriter
from eseg_d2.utils.errors import RunError

__all__ = ["CityscapesOfficialEvaluator"]

logger = logging.getLogger(__name__)


class CityscapesOfficialEvaluator(PredictionWriter):
    """Write the predictions of a Cityscapes data set and have cityscapesscripts score the files.

    Works with every Detectron2; the Cityscapes evaluators of its main branch import a module
    internal to Meta. Needs ``gtFine`` as published (``*_labelIds.png``, ``*_instanceIds.png``).
    """

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Write the predictions, and note of what kinds they are."""
        super().process(inputs, outputs)
        for output in outputs:
            self._kinds |= {"panoptic_seg", "sem_seg", "instances"} & output.keys()

    def reset(self) -> None:
        super().reset()
        self._kinds: set[str] = set()

    def evaluate(self) -> dict | None:
        """Return ``{"cityscapes": {...}}`` in percent, in the main process.

        ``IoU``, ``iIoU``, ``IoU_sup``, ``iIoU_sup`` of pixels; ``AP``, ``AP50`` of instances;
        ``PQ``, ``SQ``, ``RQ`` and the same with ``_th`` and ``_st``. A metric that
        cityscapesscripts cannot compute, as no class of its kind occurs, is NaN.
        """
        super().evaluate()
        kinds = set.union(*comm.all_gather(self._kinds)) if self._distributed else self._kinds
        if not comm.is_main_process():
            return None
        logger.info(f"cityscapesscripts scores {self._output_dir}; this takes a while")
        scores = _scores({kind: self._arguments(kind) for kind in sorted(kinds)})
        rows = [[name, value] for name, value in scores.items()]
        table = tabulate(rows, headers=["cityscapesscripts", "%"], tablefmt="pipe", floatfmt=".3f")
        logger.info("Official evaluation:\n" + table)
        return {"cityscapes": scores}

    def _arguments(self, kind: str) -> dict:
        if kind == "sem_seg":
            predictions, truths = self._pairs("semantic", ".png", "_gtFine_labelIds.png")
            return {"predictions": predictions, "truths": truths}
        folder = os.path.abspath(self._output_dir)
        if kind == "instances":
            predictions, truths = self._pairs("instance", ".txt", "_gtFine_instanceIds.png")
            return {"folder": folder, "predictions": predictions, "truths": truths}
        metadata = MetadataCatalog.get(self._dataset_name)
        names = PANOPTIC_JSON, "panoptic", "official_panoptic.json"
        truths = [metadata.panoptic_json, metadata.panoptic_root]
        return {"paths": [*truths, *(os.path.join(folder, name) for name in names)]}

    def _pairs(self, kind: str, suffix: str, truth_suffix: str) -> tuple[list[str], list[str]]:
        """Return the files of the predictions and of the truth, image by image."""
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


def _scores(arguments: dict[str, dict]) -> dict[str, float]:
    """Return what the program ``cityscapes_scores.py`` prints."""
    program = Path(__file__).with_name("cityscapes_scores.py")
    done = subprocess.run(
        [sys.executable, str(program)],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RunError(f"cityscapesscripts has failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)
