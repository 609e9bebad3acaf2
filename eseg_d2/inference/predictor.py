"""A trained model as a function from images to numpy results, with the switches of inference."""

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN, RetinaNet, SemanticSegmentor
from detectron2.structures import ImageList

from eseg_d2.config import load_config, pretrained_config
from eseg_d2.data.images import build_augmentation, read_image
from eseg_d2.engine import load_trained
from eseg_d2.inference.convert import to_prediction
from eseg_d2.inference.prediction import VOID_CLASS, ClassTable, Prediction
from eseg_d2.layers.label_map import label_map
from eseg_d2.modeling.folding import fuse_conv_activation, fuse_conv_norm
from eseg_d2.modeling.meta_arch.panoptic_rcnn import (
    PanopticRCNN,
    detect,
    run_trunk,
    scale_instances,
)
from eseg_d2.modeling.sem_seg.head import logits_stride

__all__ = ["ARCHITECTURES", "Predictor"]

ARCHITECTURES = ("PanopticRCNN", "SemanticSegmentor", "GeneralizedRCNN", "RetinaNet")

Image = np.ndarray | str | os.PathLike
Model: TypeAlias = GeneralizedRCNN | RetinaNet | SemanticSegmentor  # a PanopticRCNN is of the first


class Predictor:
    """Panoptic, semantic and instance models, from an image or its path to a :class:`Prediction`.

    Example::

        from eseg_d2 import Predictor

        predictor = Predictor("configs/rsp_panoptic_R50.yaml", "output/model_final.pth")
        prediction = predictor("street.jpg")

    The image is scaled as the config says (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST); the results have
    the image's own size. Logits never do: labels are made of them strip by strip, and masks are
    kept inside their boxes.

    Its three steps can be called one by one: :meth:`preprocess`, :meth:`network`,
    :meth:`postprocess`.

    Attributes:
        cfg: of the model.
        model: the torch module, in evaluation mode, as it is run.
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
        **options,
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
            **options: ``fuse`` (default True): run a copy of the model whose batch norms are folded
                into convolutions and whose fusion weights are constants, on a CPU also with
                activations in the convolutions before them; ``channels_last``
                (default True): memory format of convolutions; ``autocast`` (default None):
                ``torch.bfloat16`` or ``torch.float16`` to compute in mixed precision; ``compile``
                (default False): run backbone and semantic head by torch.compile, which needs a
                compiler, with CUDA graphs on a GPU.

        Raises:
            FileNotFoundError: no such config, weights or json of the data set.
            ValueError: a wrong key, device or threshold, a model without weights or of another
                architecture, or more than 255 semantic classes.
        """
        weights = os.fspath(weights)
        overrides = [*overrides, *(["MODEL.WEIGHTS", weights] if weights else [])]
        cfg = load_config(os.fspath(config_file), overrides)
        self._load(cfg, device, confidence_threshold, **options)

    @classmethod
    def pretrained(cls, name: str, *, overrides: Sequence[str] = (), **options) -> "Predictor":
        """Make one of a trained model that comes with the package.

        Example::

            prediction = Predictor.pretrained("scenes_rsp_panoptic")("demo/images/street_1.png")

        Args:
            name: one of :func:`eseg_d2.config.pretrained_names`; weights/README.md
                says what each was trained on.
            overrides: ``[KEY, VALUE, ...]`` for its config.
            **options: those of :meth:`from_config`.

        Raises:
            ValueError: there is no model of that name.
            FileNotFoundError: its file is missing, incomplete or changed.
        """
        return cls.from_config(pretrained_config(name, overrides), **options)

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        *,
        device: str | None = None,
        confidence_threshold: float | None = None,
        **options,
    ) -> "Predictor":
        """Make one of a config that :func:`eseg_d2.load_config` made, which is not changed."""
        predictor = cls.__new__(cls)
        predictor._load(cfg.clone(), device, confidence_threshold, **options)
        return predictor

    @classmethod
    def from_model(cls, cfg: CfgNode, model: Model, **options) -> "Predictor":
        """Make one of a model in memory, in evaluation mode and on its device, and its config."""
        predictor = cls.__new__(cls)
        predictor._build(cfg, model, **options)
        return predictor

    def _load(self, cfg: CfgNode, device: str | None, threshold: float | None, **options) -> None:
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
        self._build(cfg, load_trained(cfg, architectures=ARCHITECTURES), **options)

    def _build(
        self,
        cfg: CfgNode,
        model: Model,
        *,
        fuse: bool = True,
        channels_last: bool = True,
        autocast: torch.dtype | None = None,
        compile: bool = False,
    ) -> None:
        self.cfg = cfg
        self.classes = ClassTable.of_config(cfg)
        (self.aug,) = build_augmentation(cfg, is_train=False)
        self._autocast = autocast
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._device = model.pixel_mean.device
        values = torch.arange(256, device=self._device).view(256, 1)
        mean, std = (x.view(1, 3) for x in (model.pixel_mean, model.pixel_std))
        self._normalised = ((values - mean) / std)[None].cpu().numpy()
        model = fuse_conv_norm(model) if fuse else model
        self.model: Model = model.to(memory_format=self._layout)
        if fuse and not compile and self._device.type == "cpu":  # the compiler fuses by itself
            fuse_conv_activation(self.model)
        self._trunk: Callable = partial(run_trunk, self.model)
        self._copies = compile
        if compile:
            graphs = self._device.type == "cuda"
            mode = "reduce-overhead" if graphs else "default"
            self._trunk = torch.compile(self._trunk, mode=mode)

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
        """Do for several images, in one pass through the model, what calling does for one.

        Images of different sizes are padded to a common one, which can change results a little at
        the right and lower edges. Memory grows with the number of images.
        """
        if not len(images):
            return []
        arrays = [_as_array(image) for image in images]
        batch = self.preprocess(arrays)
        return self.postprocess(*self.network(batch), batch, arrays)

    @torch.no_grad()
    def preprocess(self, images: Sequence[np.ndarray]) -> ImageList:
        """Resize, normalise and pad (H, W, 3) uint8 BGR images to one batch on the device."""
        images = [self._normalise(self._resize(image)) for image in images]
        sizes = [image.shape[:2] for image in images]
        step = max(self.model.backbone.size_divisibility, 1)
        shape = [-(-max(side) // step) * step for side in zip(*sizes, strict=True)]
        batch = torch.empty(len(images), 3, *shape, memory_format=self._layout).zero_()
        for x, image, (height, width) in zip(batch, images, sizes, strict=True):
            x[:, :height, :width] = torch.from_numpy(image).permute(2, 0, 1)
        return ImageList(batch.to(self._device), sizes)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        transform = self.aug.get_transform(image)
        resizes = isinstance(transform, T.ResizeTransform)
        if resizes and min(transform.new_h, transform.new_w) < 1:
            raise ValueError(
                f"an image of {width} x {height} pixels is too long and thin: scaled to "
                f"INPUT.MAX_SIZE_TEST {self.cfg.INPUT.MAX_SIZE_TEST} nothing of its short side "
                "is left. Cut it into pieces."
            )
        return transform.apply_image(image)

    def _normalise(self, image: np.ndarray) -> np.ndarray:
        """Look up (value - mean) / std, which takes a tenth of the time of computing it."""
        return cv2.LUT(np.ascontiguousarray(image), self._normalised)

    @torch.no_grad()
    def network(self, images: ImageList) -> tuple[torch.Tensor | None, list | None]:
        """Run what is learned.

        Returns:
            The semantic logits, (B, num_classes, h, w) at the head's stride, and the detections of
            each image (Detectron2's ``Instances``); None for what the model does not give.
        """
        context: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self._autocast is not None:
            context = torch.autocast(self._device.type, dtype=self._autocast)
        with context:
            features, logits = self._trunk(images.tensor)
            detections = None
            if self.cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
                detections = detect(self.model, images, features)
        if logits is not None and self._copies:
            logits = logits.clone()  # CUDA graphs write into the same memory at each call
        return logits, detections

    @torch.no_grad()
    def postprocess(
        self,
        logits: torch.Tensor | None,
        detections: list | None,
        batch: ImageList,
        images: Sequence[np.ndarray],
    ) -> list[Prediction]:
        """Make predictions in the images' sizes of what :meth:`network` returned.

        Args:
            logits, detections: of :meth:`network`; boxes of detections are changed.
            batch: of :meth:`preprocess`.
            images: that it was given.
        """
        predictions = []
        for i, (image, seen) in enumerate(zip(images, batch.image_sizes, strict=True)):
            size = image.shape[:2]
            if isinstance(self.model, PanopticRCNN):
                assert logits is not None and detections is not None
                output = self.model.finish(logits[i], detections[i], seen, size, compact=True)
            elif detections is not None:
                output = {"instances": scale_instances(detections[i], size)}
            else:
                assert logits is not None  # without detections
                stride = logits_stride(self.model.sem_seg_head)
                options = {"stride": stride, "image_size": seen, "output_size": size}
                output = {"sem_seg": label_map(logits[i : i + 1], **options)[0]}
            predictions.append(to_prediction(output, self.classes, image))
        return predictions


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
