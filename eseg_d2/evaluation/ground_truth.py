"""The truth of a panoptic data set, as the evaluators ask for it."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from eseg_d2.data.datasets.panoptic_format import dataset_dicts
from eseg_d2.data.panoptic_png import read_panoptic_png, segment_index
from eseg_d2.structures.label_space import LabelSpace

__all__ = ["GroundTruth", "as_numpy"]


class GroundTruth:
    """Looks up segments and label maps by the image's ``file_name``.

    Attributes:
        records: the data set's dicts by ``file_name``; their ``category_id`` are contiguous.
        label_space: of the data set.
    """

    def __init__(self, dataset_name: str, semantic_classes: str = "all"):
        """Load a registered panoptic data set; for ``semantic_classes`` see :class:`LabelSpace`."""
        metadata = MetadataCatalog.get(dataset_name)
        self.label_space = LabelSpace.from_metadata(metadata, semantic_classes)
        records = _records(dataset_name, DatasetCatalog[dataset_name])
        self.records = {record["file_name"]: record for record in records}

    def segment_map(self, file_name: str) -> np.ndarray:
        """Return (H, W) int32 segment ids of an image."""
        return _segment_map(self.records[file_name]["pan_seg_file_name"])

    def segment_index(self, file_name: str) -> np.ndarray:
        """Return (H, W): index into the image's ``segments_info``, its length where void."""
        record = self.records[file_name]
        return segment_index(
            self.segment_map(file_name), record["segments_info"], record["pan_seg_file_name"]
        )

    def semantic_map(self, file_name: str) -> np.ndarray:
        """Return (H, W) int64 semantic train ids of an image, or the ignored label."""
        segments = self.records[file_name]["segments_info"]
        space = self.label_space
        train_ids = [space.contiguous_to_semantic[s["category_id"]] for s in segments]
        return np.array([*train_ids, space.ignore_label])[self.segment_index(file_name)]


@lru_cache(maxsize=4)
def _records(dataset_name: str, load: Callable[[], list[dict]]) -> list[dict]:
    # the function is part of the key: a name may be registered anew, with other classes
    return dataset_dicts(dataset_name)


@lru_cache(maxsize=2)
def _segment_map(path: str) -> np.ndarray:
    # the evaluators of one run ask for the same image in turn
    return read_panoptic_png(path)


def as_numpy(segment_map) -> np.ndarray:
    """Return a predicted map, a tensor on any device or an array, as an array."""
    return np.asarray(segment_map.cpu() if hasattr(segment_map, "cpu") else segment_map)
