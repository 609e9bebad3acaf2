"""Predictions as files, in the formats that the benchmarks' servers take."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from eseg_d2.data.panoptic_png import segment_id_to_rgb
from eseg_d2.evaluation.ground_truth import GroundTruth, as_numpy
from eseg_d2.utils.files import write_image
from eseg_d2.utils.json_yaml import write_json

__all__ = ["PANOPTIC_JSON", "PredictionWriter"]

PANOPTIC_JSON = "panoptic.json"


class PredictionWriter(DatasetEvaluator):
    """Writes what the model predicts; evaluates nothing.

    Files have the names of the data set's panoptic pngs, and speak dataset ids:

    - ``panoptic/*.png`` and ``panoptic.json``: COCO's panoptic format, of both benchmarks;
    - ``semantic/*.png``: Cityscapes' pixel-level format, 8 bit (16 bit if ids need it). Only if the
      semantic head has all classes: "things" together have no dataset id;
    - ``instance/*.txt`` and their masks: Cityscapes' instance-level format, for its data sets. Of
      others Detectron2's COCO evaluation writes ``coco_instances_results.json``.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str,
        semantic_classes: str = "all",
        distributed: bool = True,
    ):
        """
        Args:
            dataset_name: a registered panoptic data set.
            output_dir: gets the files; those that are there are overwritten.
            semantic_classes: what the channels of the semantic predictions are; see
                :class:`~eseg_d2.structures.label_space.LabelSpace`.
            distributed: gather the segments of all processes.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._truth = GroundTruth(dataset_name, semantic_classes)
        self._dataset_name = dataset_name
        self._root = metadata.panoptic_root
        self._with_instances = metadata.get("evaluator_type") == "cityscapes_panoptic_seg"
        self._output_dir = output_dir
        self._distributed = distributed
        self._dataset_ids = np.array(self._truth.label_space.dataset_ids)
        self.reset()

    def reset(self) -> None:
        self._annotations: list[dict] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Write ``panoptic_seg``, ``sem_seg`` and ``instances``, whichever the outputs have."""
        for item, output in zip(inputs, outputs, strict=True):
            record = self._truth.records[item["file_name"]]
            name = self._name(record)
            if "panoptic_seg" in output:
                self._write_panoptic(name, record["image_id"], *output["panoptic_seg"])
            if "sem_seg" in output and self._truth.label_space.semantic_classes == "all":
                self._write_semantic(name, output["sem_seg"])
            if "instances" in output and self._with_instances:
                self._write_instances(name, output["instances"].to("cpu"))

    def _name(self, record: dict) -> str:
        return os.path.relpath(record["pan_seg_file_name"], self._root)

    def _write_panoptic(self, name: str, image_id, segment_map, segments: list[dict]) -> None:
        rgb = segment_id_to_rgb(as_numpy(segment_map))
        self._write_png(os.path.join("panoptic", name), rgb)
        plain = [
            {"id": int(s["id"]), "category_id": int(self._dataset_ids[s["category_id"]])}
            for s in segments
        ]
        self._annotations.append(
            {"image_id": image_id, "file_name": name.replace(os.sep, "/"), "segments_info": plain}
        )

    def _write_semantic(self, name: str, logits) -> None:
        labels = self._dataset_ids[logits.argmax(dim=0).cpu().numpy()]
        dtype = np.uint8 if self._dataset_ids.max() < 256 else np.uint16
        self._write_png(os.path.join("semantic", name), labels.astype(dtype))

    def _write_instances(self, name: str, instances) -> None:
        stem = os.path.splitext(os.path.join("instance", name))[0]
        lines = []
        for i in range(len(instances)):
            category = self._dataset_ids[instances.pred_classes[i]]
            mask = f"{stem}_{i}.png"
            self._write_png(mask, np.asarray(instances.pred_masks[i], np.uint8) * 255)
            lines.append(f"{os.path.basename(mask)} {category} {float(instances.scores[i]):.6f}\n")
        path = os.path.join(self._output_dir, f"{stem}.txt")
        os.makedirs(os.path.dirname(path), exist_ok=True)  # an image without any instance
        with open(path, "w") as f:
            f.writelines(lines)

    def _write_png(self, name: str, image: np.ndarray) -> None:
        path = Path(self._output_dir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, image)

    def evaluate(self) -> dict | None:
        """Write ``panoptic.json`` in the main process, once every process is done; return None."""
        annotations = self._annotations
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(annotations)
            if not comm.is_main_process():
                return None
            annotations = [annotation for part in gathered for annotation in part]
        if annotations:
            path = os.path.join(self._output_dir, PANOPTIC_JSON)
            write_json(path, {"annotations": annotations})
        return None
