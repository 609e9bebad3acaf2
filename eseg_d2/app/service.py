"""What the page asks for and what it gets: json messages made of predictions."""

import base64
import mimetypes
import re
import secrets
import threading
import traceback
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from eseg_d2.app.results import (
    DOWNLOADS,
    data_uri,
    draw_levels,
    has_label_map,
    make_download,
    reduce,
)
from eseg_d2.app.safety import Limits, uploaded_file
from eseg_d2.app.views import make_views
from eseg_d2.inference.images import read_image
from eseg_d2.inference.prediction import Prediction
from eseg_d2.inference.predictor import Predictor
from eseg_d2.inference.sources import find_sources
from eseg_d2.visualization import relation

__all__ = ["Service"]

LONGEST = 2048  # pixels of the longer side; larger images are reduced
_KEPT = 8  # results in memory, for clicks and downloads
_MAX_EXAMPLES = 24
_NOTES = {
    "panoptic": "Every pixel has one segment: an object, or a class that cannot be counted.",
    "semantic": "Every pixel has a class.",
    "instances": "The objects; the one with the highest score lies on top.",
    "context": "Click a pixel: the pictures show where the RSP head takes its context from.",
}
_LABELS = {
    "overlay": "Overlay",
    "labels": "Label map",
    "json": "Segments (json)",
    "zip": "All (zip)",
}


@dataclass
class _Shown:
    """A result that a visitor sees; ``weights`` are the relation's, once a pixel was clicked."""

    name: str
    image: np.ndarray
    prediction: Prediction
    weights: list[torch.Tensor] = field(default_factory=list)
    seen: tuple[int, int] = (0, 0)


class Service:
    """A model behind the page. One request at a time reaches the model.

    Every answer is a dict for json with ``kind``: "result", "context", "file", or "error" with
    ``text``. Visitors name results by tokens that cannot be guessed; the last 8 are kept.
    """

    def __init__(
        self, predictor: Predictor, *, folder: Path, limits: Limits, examples: Path | None = None
    ):
        """
        Args:
            predictor: the model.
            folder: that uploads are in.
            limits: of uploads.
            examples: a folder of images to choose from; the first 24 are taken.

        Raises:
            FileNotFoundError: there is no such folder, or no image in it.
            ValueError: an example cannot be read.
        """
        self.predictor, self.folder, self.limits = predictor, folder, limits
        self._lock = threading.Lock()
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        sources = [] if examples is None else find_sources([str(examples)])
        self._examples = [s for s in sources if not s.is_video][:_MAX_EXAMPLES]
        self._thumbnails = [
            data_uri(reduce(self._read(s.path)[:, :, ::-1], 240), 80) for s in self._examples
        ]
        try:
            self._head = relation.find_rsp_head(predictor.model)
        except ValueError:
            self._head = None

    def start(self) -> dict:
        """The first message: what the page says before there is a result."""
        kind = self.predictor.cfg.MODEL.META_ARCHITECTURE
        megabytes, millions = self.limits.max_upload / 1e6, self.limits.max_pixels / 1e6
        return {
            "kind": "start",
            "about": f"{kind}, {len(self.predictor.classes.names)} classes.",
            "hint": f"or drop or paste one: up to {megabytes:.3g} MB and {millions:.3g} million "
            "pixels. The file is deleted once it is read."
            + (" Or take an example:" if self._examples else ""),
            "max_bytes": self.limits.max_upload,
            "examples": [
                {"name": source.name, "picture": picture}
                for source, picture in zip(self._examples, self._thumbnails, strict=True)
            ],
        }

    def answer(self, event: str, request: dict) -> dict:
        """Of an event ("predict", "context", "download") and what came with it, untrusted."""
        serial = request.get("serial")
        serial = serial if isinstance(serial, int) else 0
        try:
            with self._lock:
                message = getattr(self, f"_{event}")(request)
        except (ValueError, OSError, MemoryError) as error:
            message = {"kind": "error", "text": str(error) or type(error).__name__}
        except Exception:  # of the model: for the log, and the page goes on
            traceback.print_exc()
            message = {"kind": "error", "text": "the model failed; the server's log says why"}
        return {**message, "serial": serial}

    def _predict(self, request: dict) -> dict:
        if "example" in request:
            source = self._examples[_integer(request, "example", len(self._examples))]
            return self._show(source.name, self._read(source.path))
        path = uploaded_file(self.folder, request.get("upload"))
        name = str(request.get("name") or "image")[:200]
        try:
            image = self._read(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from None
        finally:
            path.unlink(missing_ok=True)
        return self._show(name, image)

    def _read(self, path: str | Path) -> np.ndarray:
        return read_image(path, max_pixels=self.limits.max_pixels)

    def _show(self, name: str, image: np.ndarray) -> dict:
        image = reduce(image, LONGEST)
        prediction = self.predictor(image)
        views = make_views(prediction, self.predictor.classes)
        if prediction.kind == "panoptic":  # masks of objects take most memory
            prediction = replace(prediction, instances=None)
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem)[:60] or "image"
        token = secrets.token_urlsafe(16)
        self._shown[token] = _Shown(stem, image, prediction)
        while len(self._shown) > _KEPT:
            self._shown.popitem(last=False)
        labels = has_label_map(prediction)
        return {
            "kind": "result",
            "token": token,
            "name": name,
            "height": image.shape[0],
            "width": image.shape[1],
            "image": data_uri(image[:, :, ::-1]),
            "views": views,
            "notes": self._notes(views),
            "has_context": self._head is not None,
            "downloads": [(w, _LABELS[w]) for w in DOWNLOADS if labels or w != "labels"],
        }

    def _notes(self, views: dict) -> dict:
        notes = {
            name: text if name in views else f"This model gives no {name} result."
            for name, text in _NOTES.items()
        }
        head = "This model has no RSP head, so there is no relation to show."
        return {**notes, "context": head if self._head is None else _NOTES["context"]}

    def _find(self, request: dict) -> _Shown:
        token = request.get("token")
        shown = self._shown.get(token) if isinstance(token, str) else None
        if shown is None:
            raise ValueError("this result is no longer kept: choose the image again")
        self._shown.move_to_end(token)
        return shown

    def _context(self, request: dict) -> dict:
        shown = self._find(request)
        if self._head is None:
            raise ValueError("this model has no RSP head")
        height, width = shown.image.shape[:2]
        pixel = _integer(request, "row", height), _integer(request, "column", width)
        if not shown.weights:
            weights, shown.seen = relation.image_relation_weights(self.predictor, shown.image)
            # context_maps takes the mean over heads, so this is all it needs
            shown.weights = [level.mean(1, keepdim=True).cpu() for level in weights.values()]
        stride = self._head.common_stride
        levels = draw_levels(shown.image, pixel, shown.weights, shown.seen, stride)
        return {"kind": "context", "levels": levels}

    def _download(self, request: dict) -> dict:
        shown, what = self._find(request), request.get("what")
        if not isinstance(what, str) or what not in DOWNLOADS:
            raise ValueError(f"expected one of {', '.join(DOWNLOADS)}")
        classes = self.predictor.classes
        name, content = make_download(shown.image, shown.prediction, classes, shown.name, what)
        return {
            "kind": "file",
            "name": name,
            "type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "content": base64.b64encode(content).decode(),
        }


def _integer(request: dict, key: str, end: int) -> int:
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise ValueError(f"{key}: expected a whole number from 0, below {end}")
    return value
