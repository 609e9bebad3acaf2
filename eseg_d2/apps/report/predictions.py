"""Predictions of a run for the validation images, and how good each one is."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from tqdm import tqdm

from eseg_d2.apps.report.metrics import finite
from eseg_d2.data.datasets.panoptic_format import is_panoptic
from eseg_d2.data.panoptic_png import read_panoptic_png, segment_id_to_rgb, segment_index
from eseg_d2.engine import load_trained
from eseg_d2.evaluation.ground_truth import GroundTruth, as_numpy
from eseg_d2.evaluation.panoptic_quality import PanopticStatistics, count_pairs, summarize
from eseg_d2.evaluation.semantic import count_labels, iou_results
from eseg_d2.utils.files import write_image
from eseg_d2.utils.json_yaml import write_json

__all__ = [
    "ARCHITECTURES",
    "PanopticTruth",
    "Predictions",
    "SemanticTruth",
    "class_map",
    "find_weights",
]

NO_CLASS = -1


def class_map(segment_map: np.ndarray, segments: list[dict], where: str) -> np.ndarray:
    """Return the ``category_id`` of each pixel, (H, W) int64; -1 where there is no segment.

    Args:
        segment_map: (H, W) segment ids.
        segments: with ``id`` and ``category_id``.
        where: names the map in errors.
    """
    classes = np.array([*(s["category_id"] for s in segments), NO_CLASS], dtype=np.int64)
    return classes[segment_index(segment_map, segments, where)]


class PanopticTruth(GroundTruth):
    """Scores of panoptic predictions; classes are contiguous ids."""

    score_name = "PQ of the image"

    def classes(self, file_name: str) -> np.ndarray:
        """Return the (H, W) int64 contiguous ids of an image; -1 where void."""
        segments = self.records[file_name]["segments_info"]
        return class_map(self.segment_map(file_name), segments, file_name)

    def score(self, file_name: str, segment_map: np.ndarray, segments: list[dict]) -> float | None:
        """Return the PQ in percent over the classes of truth and prediction, None without any.

        Args:
            segment_map: (H, W) predicted segment ids, 0 is void.
            segments: with ``id`` and ``category_id`` (contiguous id).
        """
        truth_segments = self.records[file_name]["segments_info"]
        statistics = PanopticStatistics(self.label_space.num_classes)
        pairs = count_pairs(
            *(self.segment_map(file_name), truth_segments, f"the truth of {file_name}"),
            *(segment_map, segments, f"the prediction for {file_name}"),
        )
        statistics.add_image(pairs, truth_segments, segments)
        quality = summarize(statistics, self.label_space)[0]["PQ"]
        return None if math.isnan(quality) else quality


class SemanticTruth(GroundTruth):
    """Scores of semantic predictions; classes are semantic train ids."""

    score_name = "mIoU of the image"

    def classes(self, file_name: str) -> np.ndarray:
        """Return the (H, W) int64 semantic train ids of an image; -1 where void."""
        labels = self.semantic_map(file_name)
        return np.where(labels == self.label_space.ignore_label, NO_CLASS, labels)

    def score(self, file_name: str, segment_map: np.ndarray, segments: list[dict]) -> float | None:
        """Return the mIoU in percent over the classes of truth and prediction, None if all is void.

        Args:
            segment_map: (H, W) ids of the predicted classes' areas.
            segments: with ``id`` and ``category_id`` (semantic train id).
        """
        truth = self.semantic_map(file_name)
        predicted = class_map(segment_map, segments, f"the prediction for {file_name}")
        if (truth == self.label_space.ignore_label).all():
            return None
        confusion = count_labels(truth, predicted, self.label_space)
        return iou_results(confusion, self.label_space.semantic_names)["mIoU"]


ARCHITECTURES = {"PanopticRCNN": PanopticTruth, "SemanticSegmentor": SemanticTruth}
_FOLDER, _SCORES = "report_images", "scores.json"


class Predictions:
    """Predicted segments and scores of images, by the image's ``file_name``.

    They are kept in ``report_images`` in the run's folder: ``scores.json``, and a panoptic png for
    each image. They are made again if the weights, the config or the truth have changed.

    Attributes:
        dataset: its name.
        weights: name of the checkpoint.
        truth: of the data set; scores an image and gives its classes.
        scores: in percent by ``file_name``, None where undefined.
    """

    def __init__(self, run_folder: Path, cfg: CfgNode):
        """
        Args:
            run_folder: must be writable.
            cfg: of the run, with MODEL.WEIGHTS; the first of DATASETS.TEST is predicted.

        Raises:
            ValueError: the model predicts neither panoptic nor semantic segmentation, or the
                data set is not a panoptic one.
        """
        kind = ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE)
        if kind is None:
            raise ValueError(
                f"images are drawn for {' and '.join(ARCHITECTURES)}, and MODEL.META_ARCHITECTURE "
                f"is {cfg.MODEL.META_ARCHITECTURE}"
            )
        self.dataset = cfg.DATASETS.TEST[0]
        if not is_panoptic(self.dataset):
            raise ValueError(f"images are drawn for panoptic data sets; {self.dataset} is not one")
        self.weights = os.path.basename(cfg.MODEL.WEIGHTS)
        self.truth = kind(self.dataset, cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES)
        self._cfg = cfg
        self._folder = run_folder / _FOLDER
        self._made_by = _fingerprint(cfg, self.truth)
        self._segments: dict[str, list[dict]] = {}
        self.scores: dict[str, float | None] = {}
        self._numbers = {name: i for i, name in enumerate(self.truth.records)}
        self._read()

    def __getitem__(self, file_name: str) -> tuple[np.ndarray, list[dict]]:
        """Return the (H, W) int32 segment ids, and the segments with ``id`` and ``category_id``."""
        return read_panoptic_png(str(self._path(file_name))), self._segments[file_name]

    def complete(self, file_names: Sequence[str]) -> None:
        """Predict the images that are missing; an interrupted call keeps what it has.

        Raises:
            FileNotFoundError: the weights, an image or its truth are missing.
            ValueError: an image cannot be read.
        """
        missing = [name for name in file_names if name not in self.scores]
        if not missing:
            return
        self._folder.mkdir(exist_ok=True)
        try:
            for file_name, segment_map, segments in self._predict(missing):
                write_image(self._path(file_name), segment_id_to_rgb(segment_map))
                self._segments[file_name] = segments
                self.scores[file_name] = self.truth.score(file_name, segment_map, segments)
        finally:
            self._write()

    def _predict(self, file_names: Sequence[str]) -> Iterator[tuple[str, np.ndarray, list[dict]]]:
        model = load_trained(self._cfg, architectures=tuple(ARCHITECTURES))
        loader = build_detection_test_loader(
            [self.truth.records[name] for name in file_names],
            mapper=DatasetMapper(self._cfg, is_train=False),
            num_workers=self._cfg.DATALOADER.NUM_WORKERS,
        )
        for inputs in tqdm(loader, desc=f"predictions of {self._folder.parent.name}", unit="image"):
            with torch.no_grad():
                (output,) = model(inputs)
            yield inputs[0]["file_name"], *_segments_of(output)

    def _path(self, file_name: str) -> Path:
        # by number, since an image's name is no safe name for a file here
        return self._folder / f"{self._numbers[file_name]:06d}.png"

    def _read(self) -> None:
        """Take what an earlier call has left, if model and data are the same."""
        try:
            content = json.loads((self._folder / _SCORES).read_text(encoding="utf-8"))
            if content["made_by"] != self._made_by:
                return
            for file_name, image in content["images"].items():
                if file_name in self._numbers and self._path(file_name).is_file():
                    segments = [
                        {"id": int(id_), "category_id": int(category), "isthing": bool(is_thing)}
                        for id_, category, is_thing in image["segments"]
                    ]
                    self._segments[file_name] = segments
                    self.scores[file_name] = finite(image["score"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._segments, self.scores = {}, {}  # missing, or not written by us: predict

    def _write(self) -> None:
        images = {}
        for name, score in self.scores.items():
            rows = [[s["id"], s["category_id"], s["isthing"]] for s in self._segments[name]]
            images[name] = {"score": score, "segments": rows}
        content = {"made_by": self._made_by, "score": self.truth.score_name, "images": images}
        write_json(self._folder / _SCORES, content)


def find_weights(run_folder: Path) -> Path:
    """Return the final checkpoint of a run, or else its last one.

    Raises:
        FileNotFoundError: there is none.
    """
    names = ["model_final.pth"]
    last = run_folder / "last_checkpoint"
    if last.is_file():
        # written by the run: a name in this folder, and never a path to elsewhere
        names.append(Path(last.read_text(encoding="utf-8", errors="replace").strip()).name)
    for name in names:
        if name and (run_folder / name).is_file():
            return run_folder / name
    raise FileNotFoundError(f"{run_folder} holds no checkpoint ({' or '.join(names)})")


def _segments_of(output: dict) -> tuple[np.ndarray, list[dict]]:
    """Return segment ids and segments; of a semantic output each class is one, its id class + 1."""
    if "panoptic_seg" in output:
        segment_map, segments = output["panoptic_seg"]
        keys = ("id", "category_id", "isthing")
        plain = [{key: int(s[key]) for key in keys} for s in segments]
        return as_numpy(segment_map), plain
    labels = as_numpy(output["sem_seg"].argmax(dim=0))
    ids = np.unique(labels).tolist()
    return labels + 1, [{"id": c + 1, "category_id": c, "isthing": 0} for c in ids]


def _fingerprint(cfg: CfgNode, truth) -> str:
    """Return a digest of what predictions and scores depend on: not of the folder or the device."""
    settings = cfg.clone()
    settings.defrost()
    settings.OUTPUT_DIR = settings.MODEL.WEIGHTS = settings.MODEL.DEVICE = ""
    settings.DATALOADER.NUM_WORKERS = 0
    parts = [settings.dump(), truth.score_name, *truth.records]
    for record in truth.records.values():
        parts.append(json.dumps(record["segments_info"], sort_keys=True, default=str))
    if os.path.exists(cfg.MODEL.WEIGHTS):
        state = os.stat(cfg.MODEL.WEIGHTS)
        parts += [str(state.st_size), str(state.st_mtime_ns)]
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()
