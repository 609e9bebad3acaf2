"""Map dataset dicts to model inputs, for training and for evaluation."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances

from eseg_d2.data.images import build_augmentation, read_image
from eseg_d2.data.panoptic_png import (
    find_runs,
    look_up_segments,
    read_panoptic_png,
    rgb_to_segment_id,
    segment_id_to_rgb,
)
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.errors import BadSampleError

__all__ = ["EvaluationMapper", "LabelCheckedMapper", "PanopticMapper"]

_NO_LIMIT = float("inf")  # on a data set's images, besides Pillow's own limit of 178 million pixels
_ANNOTATIONS = ("annotations", "sem_seg_file_name")


class PanopticMapper:
    """Map a panoptic dataset dict to the model's training input.

    Image and panoptic png go through the same augmentations. The semantic and the instance targets
    are made from the png afterwards, so no second annotation file is needed, and boxes always fit
    the remaining masks. (Detectron2's Panoptic FPN reads a semantic png and an instance json that
    are generated beforehand.)
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: list,
        image_format: str,
        label_space: LabelSpace,
        with_instances: bool = True,
    ):
        """
        Args:
            augmentations: Detectron2 augmentations, applied in this order.
            image_format: ``"BGR"`` or ``"RGB"``, as the model expects.
            label_space: label space of the data set.
            with_instances: also make instance targets, which semantic models do not need.
        """
        self.with_instances = with_instances
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.label_space = label_space

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict:
        augmentations = _resize_and_crop(cfg)
        jitter = cfg.INPUT.COLOR_JITTER
        if jitter:
            kinds = T.RandomBrightness, T.RandomContrast, T.RandomSaturation
            augmentations += [kind(1 - jitter, 1 + jitter) for kind in kinds]
        return {
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "label_space": LabelSpace.from_metadata(
                MetadataCatalog.get(dataset_name), cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
            ),
            "with_instances": cfg.MODEL.MASK_ON,
        }

    @classmethod
    def for_validation(cls, cfg: CfgNode, dataset_name: str) -> "PanopticMapper":
        """Return a mapper to training targets, for whole images at test size."""
        arguments = cls.from_config(cfg, dataset_name)
        arguments["augmentations"] = build_augmentation(cfg, is_train=False)
        return cls(**arguments)

    def __call__(self, dataset_dict: dict) -> dict:
        """Return a training sample.

        Args:
            dataset_dict: dict of a panoptic data set, from our loader or Detectron2's own;
                ``category_id`` are contiguous ids.

        Returns:
            The keys of the dict, and

            - ``image``: (3, H, W) uint8 tensor, H and W after augmentation;
            - ``sem_seg``: (H, W) int64 tensor of semantic train ids, or the ignored label where
              the png is void;
            - ``instances`` (``with_instances`` only): Detectron2 ``Instances`` of the remaining
              things except crowds, possibly none, with ``gt_classes`` (ROI classes), ``gt_boxes``
              (x0, y0, x1, y1 in pixels) and ``gt_masks`` (``BitMasks``).

        Raises:
            FileNotFoundError: the image or the png is missing.
            BadSampleError: one of them cannot be read, or their sizes differ.
            ValueError: the png has ids that its segments_info does not list.
        """
        dataset_dict = dict(dataset_dict)  # a shallow copy: the values are not changed
        path = dataset_dict["pan_seg_file_name"]
        segments = dataset_dict["segments_info"]
        image = read_image(dataset_dict["file_name"], self.image_format, max_pixels=_NO_LIMIT)
        panoptic = read_panoptic_png(path)
        if image.shape[:2] != panoptic.shape:
            raise BadSampleError(
                f"{dataset_dict['file_name']} is {image.shape[1]}x{image.shape[0]} pixels, its "
                f"label {path} {panoptic.shape[1]}x{panoptic.shape[0]}; they must be equal"
            )
        aug_input = T.AugInput(image, sem_seg=_to_bytes(panoptic, segments, path))
        self.augmentations(aug_input)
        index = _from_bytes(aug_input.sem_seg, len(segments))
        image = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        dataset_dict["image"] = torch.from_numpy(image)
        dataset_dict["sem_seg"] = self._semantic(index, segments)
        if self.with_instances:
            dataset_dict["instances"] = self._instances(index, segments)
        return dataset_dict

    def _semantic(self, index: np.ndarray, segments: list[dict]) -> torch.Tensor:
        space = self.label_space
        train_ids = [space.contiguous_to_semantic[s["category_id"]] for s in segments]
        table = np.array([*train_ids, space.ignore_label], dtype=np.int64)
        return torch.from_numpy(table[index])

    def _instances(self, index: np.ndarray, segments: list[dict]) -> Instances:
        space = self.label_space
        present = np.bincount(index.ravel(), minlength=len(segments) + 1)
        chosen = [
            i
            for i, s in enumerate(segments)
            if present[i] and space.is_thing[s["category_id"]] and not s.get("iscrowd", 0)
        ]
        classes = [space.contiguous_to_roi[segments[i]["category_id"]] for i in chosen]
        masks = np.zeros((len(chosen), *index.shape), dtype=bool)
        boxes = np.zeros((len(chosen), 4), dtype=np.float32)
        for mask, box, i in zip(masks, boxes, chosen, strict=True):
            np.equal(index, i, out=mask)
            left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
            box[:] = left, top, left + width, top + height
        instances = Instances(index.shape)
        instances.gt_masks = BitMasks(torch.from_numpy(masks))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        return instances


def _resize_and_crop(cfg: CfgNode) -> list:
    augmentations = build_augmentation(cfg, is_train=True)
    if cfg.INPUT.CROP.ENABLED:
        # crop after resizing, as Detectron2's segmentation projects do: the model gets SIZE
        augmentations.insert(1, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        if cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA != 1.0:
            raise ValueError(
                "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is "
                f"{cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA}; panoptic data sets are cropped "
                "anywhere: leave it at 1.0"
            )
    return augmentations


def _to_bytes(panoptic: np.ndarray, segments: list[dict], path: str) -> np.ndarray:
    """Return 1-based indices into ``segments`` as uint8, which Detectron2 resizes fast.

    It has one channel, or three if there are many segments. Void is 0, because transforms of
    Detectron2 0.6 pad with 0 (later versions with 255).
    """
    (ids,), lengths = find_runs(panoptic)
    labels = (look_up_segments(ids, segments, path) + 1) % (len(segments) + 1)
    if len(segments) >= 255:
        labels = segment_id_to_rgb(labels)
    labels = np.repeat(labels.astype(np.uint8), lengths, axis=0)
    return labels.reshape(*panoptic.shape, *labels.shape[1:])


def _from_bytes(labels: np.ndarray, num_segments: int) -> np.ndarray:
    labels = labels.astype(np.int32) if labels.ndim == 2 else rgb_to_segment_id(labels)
    labels[(labels == 0) | (labels > num_segments)] = num_segments + 1
    return labels - 1


class LabelCheckedMapper:
    """Checks the labels of a Detectron2 mapper; those of the panoptic mapper are always valid.

    On a GPU, a label out of range would only raise a "device-side assert".
    """

    def __init__(self, cfg: CfgNode, mapper: Callable[[dict], dict]):
        """Take a mapper to ``sem_seg`` (semantic train ids) or ``instances`` (ROI classes)."""
        self._mapper = mapper
        self._num_semantic = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        self._ignored = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        self._num_rois = cfg.MODEL.ROI_HEADS.NUM_CLASSES

    def __call__(self, dataset_dict: dict) -> dict:
        """Return the mapper's sample.

        Raises:
            ValueError: a label is not a class of the model; the message names file and label.
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


class EvaluationMapper:
    """Maps a dataset dict to a model's input like Detectron2's mapper, but with our image reader.

    For an image that cannot be read it returns the message instead of a sample, because exceptions
    of worker processes arrive as tracebacks.
    """

    def __init__(self, cfg: CfgNode):
        """Read INPUT of a config."""
        self._augmentations = T.AugmentationList(build_augmentation(cfg, is_train=False))
        self._image_format = cfg.INPUT.FORMAT

    def __call__(self, dataset_dict: dict) -> dict | str:
        """Return the dict with ``image``, (3, H, W) uint8, for its annotations; or a message."""
        kept = {k: v for k, v in dataset_dict.items() if k not in _ANNOTATIONS}
        try:
            image = read_image(kept["file_name"], self._image_format, max_pixels=_NO_LIMIT)
            detection_utils.check_image_size(kept, image)
        except (BadSampleError, FileNotFoundError) as e:
            return str(e)
        except (OSError, detection_utils.SizeMismatchError) as e:
            return f"cannot read the image {kept['file_name']}: {e}."
        aug_input = T.AugInput(image)
        self._augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        return {**kept, "image": torch.from_numpy(pixels)}
