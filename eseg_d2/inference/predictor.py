"""A trained model as a function from images to numpy results."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from eseg_d2.config import load_config
from eseg_d2.data.images import read_image
from eseg_d2.engine import load_trained
from eseg_d2.inference.classes import VOID_CLASS, ClassTable
from eseg_d2.inference.convert import to_prediction
from eseg_d2.inference.prediction import Prediction
from eseg_d2.modeling.meta_arch.panoptic import PanopticRCNN

__all__ = ["ARCHITECTURES", "Predictor"]

ARCHITECTURES = ("PanopticRCNN", "SemanticSegmentor", "GeneralizedRCNN", "RetinaNet")
# A model's maps are made at up to this size (fp32 logits of 2 GiB), and enlarged beyond it
_MAX_LOGITS = 2**29
_MAX_OUTPUT_PIXELS = 2**24

Image = np.ndarray | str | os.PathLike


class Predictor:
    """Panoptic, semantic and instance models, from an image or its path to a :class:`Prediction`.

    Example::

        from eseg_d2 import Predictor

        predictor = Predictor("configs/rsp_panoptic_R50.yaml", "output/model_final.pth")
        prediction = predictor("street.jpg")

    The image is scaled as the config says (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST); the results have
    the image's own size. Of images so large that the logits would take more than 2 GiB (14 million
    pixels with 19 classes) they are made at a smaller size and enlarged.

    Attributes:
        cfg: of the model.
        model: the torch module, in evaluation mode.
        classes: names and colours by class id.
        aug: Detectron2's scaling of the input, by its name in ``DefaultPredictor``.
    """

    def __init__(
        self,
        config_file: str | os.PathLike,
        weights: str | os.PathLike = "",
        *,
        overrides: Sequence[str] = (),
        device: str | None = None,
        confidence_threshold: float | None = None,
    ):
        """
        Args:
            config_file: YAML, one of ``configs/`` or ``config.yaml`` in a run's OUTPUT_DIR.
            weights: a checkpoint, file or URL; "" takes the config's MODEL.WEIGHTS.
            overrides: ``[KEY, VALUE, ...]`` for the config.
            device: "cpu", "cuda", "cuda:1" ...; None takes MODEL.DEVICE, or the CPU where that
                says CUDA and there is no GPU.
            confidence_threshold: 0 .. 1, objects with a lower score are left out; None keeps the
                config's thresholds.

        Raises:
            FileNotFoundError: no such config, weights or json of the data set.
            ValueError: a wrong key, device or threshold, a model without weights or of another
                architecture, or more than 255 semantic classes.
        """
        weights = os.fspath(weights)
        overrides = [*overrides, *(["MODEL.WEIGHTS", weights] if weights else [])]
        cfg = load_config(os.fspath(config_file), overrides)
        self._build(cfg, device, confidence_threshold)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, *, device: str | None = None, confidence_threshold: float | None = None
    ) -> "Predictor":
        """Of a config that :func:`eseg_d2.config.load_config` made; it is not changed."""
        predictor = cls.__new__(cls)
        predictor._build(cfg.clone(), device, confidence_threshold)
        return predictor

    def _build(self, cfg: CfgNode, device: str | None, threshold: float | None) -> None:
        cfg.defrost()
        if not cfg.MODEL.WEIGHTS:
            raise ValueError(
                "the model has no weights: give those of a training, such as "
                "MODEL.WEIGHTS output/model_final.pth (in Python the argument weights)"
            )
        if device is not None:
            cfg.MODEL.DEVICE = _checked_device(device)
        if threshold is not None:
            _set_threshold(cfg, threshold)
        semantic = cfg.MODEL.META_ARCHITECTURE in ("PanopticRCNN", "SemanticSegmentor")
        if semantic and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES > VOID_CLASS:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}; "
                f"label maps of 8 bits hold up to {VOID_CLASS}"
            )
        self.cfg = cfg
        self.model = load_trained(cfg, architectures=ARCHITECTURES)
        if isinstance(self.model, PanopticRCNN):
            self.model.semantic_labels = True  # the logits of a large image are not needed
        self.classes = ClassTable.of_config(cfg)
        channels = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if semantic else 1
        self._max_pixels = min(_MAX_LOGITS // channels, _MAX_OUTPUT_PIXELS)
        self.aug = T.ResizeShortestEdge(
            [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST
        )

    def __call__(self, image: Image) -> Prediction:
        """
        Args:
            image: a path (see :func:`eseg_d2.data.images.read_image`), or (H, W, 3) uint8
                BGR as OpenCV reads it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it cannot be read, or has another shape or type.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[Image]) -> list[Prediction]:
        """As calling it with each image, in one pass through the model.

        Images of different sizes are padded to a common one, which can change results a little at
        the right and lower edges. Memory grows with the number of images.
        """
        if not len(images):
            return []
        arrays = [_as_array(image) for image in images]
        inputs = [self._preprocess(array) for array in arrays]
        with torch.no_grad():
            outputs = self.model(inputs)
        return [
            to_prediction(output, self.classes, array)
            for output, array in zip(outputs, arrays, strict=True)
        ]

    def _preprocess(self, image: np.ndarray) -> dict:
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        transform = self.aug.get_transform(image)
        if min(transform.new_h, transform.new_w) < 1:
            raise ValueError(
                f"an image of {width} x {height} pixels is too long and thin: scaled to "
                f"INPUT.MAX_SIZE_TEST {self.cfg.INPUT.MAX_SIZE_TEST} nothing of its short side "
                "is left. Cut it into pieces."
            )
        resized = np.ascontiguousarray(transform.apply_image(np.ascontiguousarray(image)))
        scale = min(1.0, (self._max_pixels / (height * width)) ** 0.5)
        return {
            "image": torch.from_numpy(resized.transpose(2, 0, 1).astype(np.float32)),
            "height": max(int(height * scale), 1),
            "width": max(int(width * scale), 1),
        }


def _as_array(image: Image) -> np.ndarray:
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"got an image of type {type(image).__name__}; expected a path or array")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"got an image of shape {image.shape} and type {image.dtype}; expected (H, W, 3) uint8 "
            "BGR. eseg_d2.inference.read_image gives that of any file."
        )
    return image


def _checked_device(device: str) -> str:
    try:
        kind = torch.device(device).type
    except RuntimeError as e:
        raise ValueError(f"device {device!r}: expected cpu, cuda or cuda:<number>") from e
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r}, but this machine has {torch.cuda.device_count()} GPUs that torch "
            "can use. Take cpu."
        )
    return device


def _set_threshold(cfg: CfgNode, threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"the confidence threshold is {threshold}; expected 0 .. 1")
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        raise ValueError(
            "a confidence threshold is for models that find objects; this one is a "
            "SemanticSegmentor: leave it out"
        )
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = threshold
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = threshold
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = threshold
