"""COCO AP of boxes and masks, against instance annotations or the things of a panoptic truth."""

import logging
import os
from collections.abc import Iterable

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from pycocotools import mask as coco_mask
from tqdm import tqdm

from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.utils.json_yaml import write_json

__all__ = ["APEvaluator", "InstanceEvaluator", "panoptic_to_coco_instances"]

logger = logging.getLogger(__name__)


class APEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluation, several times as fast with faster-coco-eval.

    A Detectron2 with compiled operators uses its own fast evaluation; one without them pycocotools'
    loops in Python, in whose place faster-coco-eval computes the same numbers in C++.
    """

    def __init__(self, dataset_name: str, *, output_dir: str, distributed: bool = True):
        """Take a data set with ``json_file``; COCO's result json goes to ``output_dir``."""
        super().__init__(dataset_name, ("bbox", "segm"), distributed, output_dir)

    def _eval_predictions(self, predictions, img_ids=None):
        faster = None if self._use_fast_impl else _faster_coco_eval()
        results = [result for prediction in predictions for result in prediction["instances"]]
        if faster is None or not results or not self._do_evaluation:
            super()._eval_predictions(predictions, img_ids)
            return
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id", {})
        to_dataset = {contiguous: dataset for dataset, contiguous in ids.items()}
        for result in results:
            result["category_id"] = to_dataset.get(result["category_id"], result["category_id"])
        write_json(os.path.join(self._output_dir, "coco_instances_results.json"), results)
        for task in self._tasks:
            scores = self._score(faster, results, task, img_ids)
            names = self._metadata.get("thing_classes")
            self._results[task] = self._derive_coco_results(scores, task, class_names=names)

    def _score(self, coco_eval: type, results: list[dict], task: str, img_ids):
        if task == "segm":  # with a box its area would count, and not the mask's
            results = [{k: v for k, v in result.items() if k != "bbox"} for result in results]
        scores = coco_eval(self._coco_api, self._coco_api.loadRes(results), task)
        scores.params.maxDets = self._max_dets_per_image
        if img_ids is not None:
            scores.params.imgIds = img_ids
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
        return scores


def _faster_coco_eval():
    try:
        from faster_coco_eval import COCOeval_faster
    except ModuleNotFoundError:
        return None
    return COCOeval_faster


class InstanceEvaluator(APEvaluator):
    """Detectron2's COCO evaluation on any panoptic data set.

    The truth is made from the panoptic pngs and written to ``output_dir``. It differs from an
    instance json of the same images where objects overlap: a panoptic png shows only the visible
    part. Images get integer ids of their own, since Cityscapes' are strings.
    """

    def __init__(self, dataset_name: str, *, output_dir: str, distributed: bool = True):
        """Take a panoptic data set; its truth and COCO's result json go to ``output_dir``."""
        truth = GroundTruth(dataset_name)
        self._image_ids = {file_name: i for i, file_name in enumerate(truth.records)}
        path = os.path.join(output_dir, f"{dataset_name}_instances.json")
        if comm.is_main_process():
            os.makedirs(output_dir, exist_ok=True)
            write_json(path, panoptic_to_coco_instances(truth))
        comm.synchronize()
        # pred_classes are contiguous ids, and so are the category ids in the json
        name = f"{dataset_name}@instances_of_panoptic"
        MetadataCatalog.pop(name, None)
        space = truth.label_space
        MetadataCatalog.get(name).set(
            json_file=path, thing_classes=[space.names[c] for c in space.thing_ids]
        )
        super().__init__(name, output_dir=output_dir, distributed=distributed)

    def process(self, inputs: Iterable[dict], outputs: Iterable[dict]) -> None:
        """Take inputs with ``file_name``, and outputs whose ``pred_classes`` are contiguous ids."""
        inputs = [{**item, "image_id": self._image_ids[item["file_name"]]} for item in inputs]
        super().process(inputs, [{"instances": output["instances"]} for output in outputs])


def panoptic_to_coco_instances(truth: GroundTruth) -> dict:
    """Return the things of a panoptic data set as a COCO instance json.

    Images have the ids 0 .., categories contiguous ids, masks are compressed RLE; crowds stay.
    """
    images = []
    annotations: list[dict] = []
    records = tqdm(truth.records, desc="instances of the truth", leave=False, mininterval=1)
    for image_id, file_name in enumerate(records):
        index = truth.segment_index(file_name)
        images.append({"id": image_id, "height": index.shape[0], "width": index.shape[1]})
        for i, segment in enumerate(truth.records[file_name]["segments_info"]):
            if segment["isthing"]:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": segment["category_id"],
                        "iscrowd": segment["iscrowd"],
                        **_shape(index == i),
                    }
                )
    space = truth.label_space
    categories = [{"id": c, "name": space.names[c]} for c in space.thing_ids]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def _shape(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
    }
