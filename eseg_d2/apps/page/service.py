"""The model behind the page: requests in, json messages and files out."""

import re
import secrets
import tempfile
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask

from eseg_d2.apps.page.limits import Limits, integer_of, score_of
from eseg_d2.apps.page.results import DOWNLOADS, has_label_map, level_maps, make_download, reduce
from eseg_d2.apps.page.segment_maps import make_views
from eseg_d2.data.images import read_image
from eseg_d2.inference.convert import raise_threshold
from eseg_d2.inference.prediction import Prediction
from eseg_d2.inference.predictor import Predictor
from eseg_d2.inference.sources import find_sources
from eseg_d2.structures.mask_crops import MaskCrops
from eseg_d2.visualization import relation
from eseg_d2.visualization.panels import data_uri

__all__ = ["Service"]

LONGEST = 2048  # pixels of the longer side; larger images are reduced
_KEPT = 8  # results in memory, for clicks and downloads
_MAX_EXAMPLES = 24
_REQUESTS = ("upload", "example", "views", "context", "download")
_NOTES = {
    "panoptic": "Each pixel belongs to one object or one class that cannot be counted, or is void.",
    "semantic": "The class of each pixel, by the semantic head.",
    "instances": "The objects; the one with the highest score lies on top.",
    "context": "Click a pixel: the pictures show where it takes its context from.",
}


@dataclass
class _Shown:
    """A result that a visitor sees.

    Attributes:
        name: the start of the names of its files.
        image: (H, W, 3) uint8 BGR.
        prediction: with objects of any score, but without their masks.
        masks: of the objects, run-length encoded, since full ones take too much memory.
        weights: of the relation, once a pixel was clicked.
        seen: (H, W) of the image as the model then saw it.
    """

    name: str
    image: np.ndarray
    prediction: Prediction
    masks: list[dict] | None = None
    weights: list[torch.Tensor] = field(default_factory=list)
    seen: tuple[int, int] = (0, 0)


class Service:
    """The model behind the page; answers one request at a time.

    Visitors refer to results by tokens that cannot be guessed; the last 8 results are kept.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        name: str,
        limits: Limits,
        threshold: float = 0.5,
        examples: Path | None = None,
    ):
        """
        Args:
            predictor: the model. Objects below its own thresholds cannot be shown.
            name: of the model on the page.
            limits: of uploads.
            threshold: 0 .. 1, where the slider for the score of objects starts.
            examples: a folder of images to choose from; the first 24 are used.

        Raises:
            FileNotFoundError: there is no such folder, or no image in it.
            ValueError: an example cannot be read, or a threshold out of range.
        """
        self.predictor, self.name, self.limits = predictor, name, limits
        self._threshold = score_of({"threshold": threshold})
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        sources = [] if examples is None else find_sources([str(examples)])
        self._examples = [s for s in sources if not s.is_video][:_MAX_EXAMPLES]
        self._thumbnails = [
            data_uri(reduce(self._read(s.path)[:, :, ::-1], 240), 80) for s in self._examples
        ]
        try:
            self._rsp = relation.find_rsp(predictor.model)
        except ValueError:
            self._rsp = None

    def start(self) -> dict:
        """Return what the page shows before there is a result."""
        cfg = self.predictor.cfg
        megabytes, millions = self.limits.max_upload / 1e6, self.limits.max_pixels / 1e6
        classes = len(self.predictor.classes.names)
        has_objects = cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor"
        return {
            "about": f"{self.name} ({cfg.MODEL.META_ARCHITECTURE}, {classes} classes), "
            f"weights {Path(cfg.MODEL.WEIGHTS).name}",
            "hint": f"or drop or paste one: up to {megabytes:.3g} MB and {millions:.3g} million "
            "pixels. The file is not kept." + (" Or take an example:" if self._examples else ""),
            "max_bytes": self.limits.max_upload,
            "threshold": self._threshold if has_objects else None,
            "has_context": self._rsp is not None,
            "examples": [
                {"name": source.name, "picture": picture}
                for source, picture in zip(self._examples, self._thumbnails, strict=True)
            ],
        }

    def answer(self, name: str, request: dict) -> tuple[int, dict | tuple[str, bytes]]:
        """Answer a request.

        Args:
            name: "upload", "example", "views", "context" or "download".
            request: what came with it, untrusted.

        Returns:
            The HTTP status, and a dict for json (with ``error`` if it failed), or a file's name
            and content.
        """
        assert name in _REQUESTS
        try:
            return 200, getattr(self, f"_{name}")(request)
        except (ValueError, OSError, MemoryError) as error:
            return 400, {"error": str(error) or type(error).__name__}
        except Exception:  # of the model: for the log, and the page goes on
            traceback.print_exc()
            return 500, {"error": "the model failed; the server's log says why"}

    def _upload(self, request: dict) -> dict:
        name = str(request.get("name") or "image")[:200]
        with tempfile.NamedTemporaryFile(prefix="eseg_d2_app_") as file:
            file.write(request["image"])
            file.flush()
            try:
                image = self._read(file.name)
            except ValueError as error:
                raise ValueError(str(error).replace(file.name, name)) from None
        return self._show(name, image, request)

    def _example(self, request: dict) -> dict:
        source = self._examples[integer_of(request, "example", len(self._examples))]
        return self._show(Path(source.path).name, self._read(source.path), request)

    def _read(self, path: str) -> np.ndarray:
        limits = self.limits
        return read_image(path, max_pixels=limits.max_pixels, max_aspect=limits.max_aspect)

    def _show(self, name: str, full: np.ndarray, request: dict) -> dict:
        threshold = score_of(request)
        image = reduce(full, LONGEST)
        start = time.perf_counter()
        prediction = self.predictor(image)
        seconds = time.perf_counter() - start
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:60] or "image"
        shown = _Shown(stem, image, *_without_masks(prediction))
        token = secrets.token_urlsafe(16)
        self._shown[token] = shown
        while len(self._shown) > _KEPT:
            self._shown.popitem(last=False)
        sizes = [f"{one.shape[1]} x {one.shape[0]}" for one in (full, image)]
        labels = has_label_map(prediction)
        return {
            "token": token,
            "name": name,
            "facts": f"{name}: {sizes[0]} pixels"
            + (f", resized to {sizes[1]}" if sizes[0] != sizes[1] else "")
            + f"; predicted in {seconds:.2f} s",
            "height": image.shape[0],
            "width": image.shape[1],
            "image": data_uri(image[:, :, ::-1]),
            "downloads": [
                (what, text) for what, (text, _) in DOWNLOADS.items() if labels or what != "labels"
            ],
            **self._views({"token": token, "threshold": threshold}),
        }

    def _views(self, request: dict) -> dict:
        prediction = self._above(self._find(request), request)
        views = make_views(prediction, self.predictor.classes)
        notes = {
            name: text if name in views else f"This model gives no {name} result."
            for name, text in _NOTES.items()
        }
        without = "This model has no RSP head or pyramid, so there is no relation to show."
        notes["context"] = without if self._rsp is None else _NOTES["context"]
        return {"views": views, "notes": notes}

    def _find(self, request: dict) -> _Shown:
        token = request.get("token")
        shown = self._shown.get(token) if isinstance(token, str) else None
        if shown is None:
            raise ValueError("this result is no longer kept: choose the image again")
        self._shown.move_to_end(token)
        return shown

    def _above(self, shown: _Shown, request: dict) -> Prediction:
        """Return the prediction with the objects above the score that a visitor asks for."""
        prediction = shown.prediction
        if shown.masks is not None:
            masks = np.zeros((0, *prediction.size), bool)
            if shown.masks:
                masks = coco_mask.decode(shown.masks).transpose(2, 0, 1).astype(bool)
            crops = MaskCrops.from_tensor(torch.from_numpy(masks))
            prediction = replace(prediction, instances=replace(prediction.instances, crops=crops))
        return raise_threshold(prediction, score_of(request), self.predictor.model)

    def _context(self, request: dict) -> dict:
        shown = self._find(request)
        if self._rsp is None:
            raise ValueError("this model has no RSP head or pyramid")
        size = shown.image.shape[:2]
        pixel = integer_of(request, "row", size[0]), integer_of(request, "column", size[1])
        if not shown.weights:
            weights, shown.seen = relation.image_relation_weights(self.predictor, shown.image)
            # context_maps takes the mean over heads, so this is all it needs
            shown.weights = [level.mean(1, keepdim=True).cpu() for level in weights.values()]
        stride = self._rsp.common_stride
        return {
            "pixel": pixel,
            "levels": level_maps(size, pixel, shown.weights, shown.seen, stride),
        }

    def _download(self, request: dict) -> tuple[str, bytes]:
        shown, what = self._find(request), request.get("what")
        if not isinstance(what, str) or what not in DOWNLOADS:
            raise ValueError(f"expected one of {', '.join(DOWNLOADS)}")
        prediction = self._above(shown, request)
        return make_download(shown.image, prediction, self.predictor.classes, shown.name, what)


def _without_masks(prediction: Prediction) -> tuple[Prediction, list[dict] | None]:
    """Split a prediction from the masks of its objects, and run-length encode these."""
    instances = prediction.instances
    if instances is None or instances.crops is None:
        return prediction, None
    masks = (instances.mask(i) for i in range(len(instances.scores)))
    encoded = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    return replace(prediction, instances=replace(instances, crops=None)), encoded
