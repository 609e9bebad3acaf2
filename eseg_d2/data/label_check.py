"""Labels out of range, found on the CPU: a GPU would only say "device-side assert"."""

from collections.abc import Callable

from detectron2.config import CfgNode

__all__ = ["LabelCheckedMapper"]


class LabelCheckedMapper:
    """A mapper of Detectron2 whose labels are checked; those of the panoptic mapper are right."""

    def __init__(self, cfg: CfgNode, mapper: Callable[[dict], dict]):
        """
        Args:
            cfg: the numbers of classes and the ignored label are read.
            mapper: gives ``sem_seg`` (semantic train ids) or ``instances`` (ROI classes).
        """
        self._mapper = mapper
        self._num_semantic = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        self._ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        self._num_rois = cfg.MODEL.ROI_HEADS.NUM_CLASSES

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Raises:
            ValueError: a label is no class of the model; names file and label.
        """
        sample = self._mapper(dataset_dict)
        if "sem_seg" in sample:
            labels = sample["sem_seg"]
            wrong = labels[((labels < 0) | (labels >= self._num_semantic))].unique().tolist()
            wrong = [label for label in wrong if label != self._ignored]
            if wrong:
                raise ValueError(
                    f"{dataset_dict.get('sem_seg_file_name', dataset_dict['file_name'])}: pixels "
                    f"have the labels {wrong}; expected 0 .. {self._num_semantic - 1} "
                    f"(MODEL.SEM_SEG_HEAD.NUM_CLASSES) or {self._ignored} (IGNORE_VALUE)"
                )
        if "instances" in sample and sample["instances"].has("gt_classes"):
            classes = sample["instances"].gt_classes
            wrong = classes[(classes < 0) | (classes >= self._num_rois)].unique().tolist()
            if wrong:
                raise ValueError(
                    f"{dataset_dict['file_name']}: instances have the classes {wrong}; expected "
                    f"0 .. {self._num_rois - 1} (MODEL.ROI_HEADS.NUM_CLASSES)"
                )
        return sample
