"""The loader for evaluation, whose errors name the image."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T

from eseg_d2.data.panoptic_png import read_image
from eseg_d2.data.workers import explained
from eseg_d2.utils.errors import BadSampleError, RunError

__all__ = ["EvaluationMapper", "TestLoader"]


class EvaluationMapper:
    """Map a dataset dict to a model's input, as Detectron2's mapper does, with our image reader.

    It returns the message in place of a sample that cannot be read: exceptions of worker
    processes arrive as tracebacks.
    """

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: INPUT is read.
        """
        augmentations = detection_utils.build_augmentation(cfg, is_train=False)
        self._augmentations = T.AugmentationList(augmentations)
        self._image_format = cfg.INPUT.FORMAT

    def __call__(self, dataset_dict: dict) -> dict | str:
        """
        Args:
            dataset_dict: with ``file_name``.

        Returns:
            The dict without its annotations, with ``image`` (3, H, W) uint8; or why there is none.
        """
        kept = {k: v for k, v in dataset_dict.items() if k not in _ANNOTATIONS}
        try:
            image = read_image(kept["file_name"], self._image_format)
            detection_utils.check_image_size(kept, image)
        except (BadSampleError, FileNotFoundError) as e:
            return str(e)
        except (OSError, detection_utils.SizeMismatchError) as e:
            return f"cannot read the image {kept['file_name']}: {e}."
        aug_input = T.AugInput(image)
        self._augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        return {**kept, "image": torch.from_numpy(pixels)}


_ANNOTATIONS = ("annotations", "sem_seg_file_name")


class TestLoader:
    """Batches of one sample, as many as the data set has for this process."""

    __test__ = False  # no test of pytest's

    def __init__(self, loader: Iterable[list]):
        """
        Args:
            loader: Detectron2's, with an :class:`EvaluationMapper`.
        """
        self._loader = loader
        self.dataset = loader.dataset

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in explained(self._loader, self._loader.num_workers):
            for sample in batch:
                if isinstance(sample, str):
                    raise RunError(
                        f"{sample}\n  Evaluation needs every image: mend the file, or take it out "
                        "of the data set (tools/check_dataset.py finds all that are broken)."
                    )
            yield batch
