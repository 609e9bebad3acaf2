"""Speed and memory of semantic models from image to label map, peers beside each other."""

import numpy as np
import torch
from torch import nn

from eseg_d2.apps.benchmarks.measure import peak_memory, slowest_operations, take_turns
from eseg_d2.engine import load_config
from eseg_d2.engine.predictor import SemanticPredictor
from eseg_d2.export.files import onnx_session
from eseg_d2.layers.label_map import label_map
from eseg_d2.utils.tables import markdown_table

__all__ = [
    "STEPS",
    "OnnxPredictor",
    "TorchvisionPredictor",
    "benchmark_models",
    "build_predictor",
    "format_models",
    "format_profile",
]

STEPS = ("preprocess", "network", "postprocess", "total")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionPredictor:
    """A segmentation model of torchvision with the steps of a ``SemanticPredictor``.

    Its logits are taken before torchvision upsamples them, as those of the others are.
    """

    def __init__(self, name: str, *, num_classes: int, device: str, channels_last: bool = False):
        """
        Args:
            name: such as "lraspp_mobilenet_v3_large"; random weights.
            num_classes: of its classifier.
            device: "cpu" or "cuda".
            channels_last: memory format of the convolutions.
        """
        from torchvision.models import get_model

        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
        model = model.eval().to(device, memory_format=layout)
        self.module, self._layout = _TorchvisionNetwork(model).eval(), layout
        self._mean, self._std = (
            torch.tensor(x, device=device).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD)
        )

    @torch.no_grad()
    def preprocess(self, image: np.ndarray):
        """As the ``SemanticPredictor``'s."""
        x = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))
        x = (x.to(self._mean.device).float() / 255 - self._mean) / self._std
        return x[None].contiguous(memory_format=self._layout), image.shape[:2]

    @torch.no_grad()
    def network(self, x: torch.Tensor) -> torch.Tensor:
        """Logits at an eighth of the image's resolution."""
        return self.module(x)

    @torch.no_grad()
    def postprocess(self, logits: torch.Tensor, image_size, output_size) -> np.ndarray:
        """As the ``SemanticPredictor``'s."""
        labels = label_map(logits, stride=8, image_size=image_size, output_size=output_size)
        return labels[0].to(torch.uint8).cpu().numpy()


class _TorchvisionNetwork(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.backbone(x)
        return self.classifier(features.get("out", features))


class OnnxPredictor:
    """Another predictor whose network runs in onnxruntime, on the CPU with PyTorch's threads."""

    def __init__(self, predictor, size: tuple[int, int]):
        """
        Args:
            predictor: a ``SemanticPredictor`` or :class:`TorchvisionPredictor` on the CPU.
            size: (H, W) of the images.

        Raises:
            ValueError: onnxruntime is not installed.
        """
        self.preprocess, self.postprocess = predictor.preprocess, predictor.postprocess
        x, _ = predictor.preprocess(np.zeros((*size, 3), np.uint8))
        self._session = onnx_session(predictor.module, x)

    def network(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, as the predictor's."""
        logits = torch.from_numpy(self._session.run(None, {"image": x.numpy()})[0])
        last = x.is_contiguous(memory_format=torch.channels_last)
        return logits.contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )


def build_predictor(source: str, size: tuple[int, int], device: str, **options):
    """A predictor with random weights for images of one size.

    Args:
        source: a config file of a semantic model, or "torchvision:<name>".
        size: (H, W) of the images, which are not resized.
        device: "cpu" or "cuda".
        options: of :class:`~eseg_d2.engine.predictor.SemanticPredictor`; of them torchvision's
            models take ``channels_last``.
    """
    if source.startswith("torchvision:"):
        name = source.removeprefix("torchvision:")
        channels_last = options.get("channels_last", False)
        return TorchvisionPredictor(
            name, num_classes=19, device=device, channels_last=channels_last
        )
    keys = ["MODEL.DEVICE", device]
    keys += ["INPUT.MIN_SIZE_TEST", str(min(size)), "INPUT.MAX_SIZE_TEST", str(max(size))]
    cfg = load_config(source, keys)
    cfg.MODEL.WEIGHTS = ""  # the weights do not matter to the speed
    return SemanticPredictor(cfg, **options)


def benchmark_models(
    predictors: dict[str, object], size: tuple[int, int], *, repeats: int, device: str
) -> list[dict]:
    """Times each step of each predictor, one image at a time, the predictors in turns.

    Args:
        predictors: by name, with ``preprocess``, ``network`` and ``postprocess``.
        size: (H, W) of the image.
        repeats: timed rounds, after one to warm up.
        device: "cpu" or "cuda".

    Returns:
        For each predictor {"name", "size", "seconds": {step: {"median", "min", "max"}},
        "images_per_second", "peak_bytes", "speedup"}: STEPS with their total, measured as a whole;
        PyTorch's peak memory beyond weights and image; speed relative to the last predictor.
    """
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    calls = {}
    for name, predictor in predictors.items():
        x, seen = predictor.preprocess(image)
        logits = predictor.network(x)
        steps = {
            "preprocess": lambda p=predictor: p.preprocess(image),
            "network": lambda p=predictor, x=x: p.network(x),
            "postprocess": lambda p=predictor, y=logits, s=seen: p.postprocess(y, s, size),
            "total": lambda p=predictor: _whole_way(p, image),
        }
        calls |= {(name, step): call for step, call in steps.items()}
    seconds = take_turns(calls, repeats, device)
    slowest = seconds[[*predictors][-1], "total"]["median"]
    return [
        {
            "name": name,
            "size": [*size],
            "seconds": {step: seconds[name, step] for step in STEPS},
            "images_per_second": 1 / seconds[name, "total"]["median"],
            "peak_bytes": peak_memory(calls[name, "total"], device),
            "speedup": slowest / seconds[name, "total"]["median"],
        }
        for name in predictors
    ]


def _whole_way(predictor, image):
    x, seen = predictor.preprocess(image)
    return predictor.postprocess(predictor.network(x), seen, image.shape[:2])


def format_models(rows: list[dict]) -> str:
    """A table in Markdown; medians in milliseconds, of the total with the spread."""
    head = ["model", *(f"{step} ms" for step in STEPS[:3]), "total ms (min - max)", "images/s"]
    head += ["peak MiB", f"speed of {rows[-1]['name']}"]
    lines = []
    for row in rows:
        seconds = row["seconds"]
        total = seconds["total"]
        cells = [row["name"], *(f"{seconds[step]['median'] * 1e3:.1f}" for step in STEPS[:3])]
        low, middle, high = (total[key] * 1e3 for key in ("min", "median", "max"))
        cells += [f"{middle:.1f} ({low:.1f} - {high:.1f})", f"{row['images_per_second']:.2f}"]
        cells += [f"{row['peak_bytes'] / 2**20:.0f}", f"{row['speedup']:.2f}x"]
        lines.append(cells)
    return markdown_table(head, lines)


def format_profile(predictor, size: tuple[int, int], device: str) -> str:
    """What the network spends its time on, a table in Markdown.

    Args:
        predictor: as those of :func:`benchmark_models`.
        size: (H, W) of the image.
        device: "cpu" or "cuda".
    """
    x, _ = predictor.preprocess(np.zeros((*size, 3), np.uint8))
    rows = slowest_operations(lambda: predictor.network(x), device, 6)
    cells = [[name, f"{share:.0%}", f"{calls}"] for name, share, calls in rows]
    return markdown_table(["operation", "time", "calls"], cells)
