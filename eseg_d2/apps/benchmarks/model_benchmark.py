"""Compare the speed and memory of models, from the image to labels or segments."""

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.model_zoo import get_config_file
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn

from eseg_d2.apps.benchmarks.measure import peak_memory, slowest_operations, take_turns
from eseg_d2.engine import load_config
from eseg_d2.export.formats import onnx_session
from eseg_d2.inference import Predictor
from eseg_d2.modeling.meta_arch.panoptic_rcnn import run_trunk
from eseg_d2.utils.markup import markdown_table

__all__ = [
    "STEPS",
    "Detectron2Predictor",
    "OnnxPredictor",
    "TorchvisionPredictor",
    "benchmark_models",
    "build_predictor",
    "format_models",
    "format_profile",
    "panoptic_config",
]

STEPS = ("preprocess", "network", "postprocess", "total")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionPredictor:
    """A segmentation model of torchvision, used as its documentation shows.

    The logits are upsampled to the image's size, as the model itself does, before the argmax. The
    steps are those of a :class:`~eseg_d2.inference.Predictor`.
    """

    def __init__(self, name: str, *, num_classes: int, device: str, channels_last: bool = True):
        """
        Args:
            name: name of the model, such as "lraspp_mobilenet_v3_large"; its weights are random.
            num_classes: number of classes of the classifier.
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
    def preprocess(self, images):
        """Return the normalised batch of one image."""
        x = torch.from_numpy(np.ascontiguousarray(images[0][:, :, ::-1].transpose(2, 0, 1)))
        x = (x.to(self._mean.device).float() / 255 - self._mean) / self._std
        return x[None].contiguous(memory_format=self._layout)

    @torch.no_grad()
    def network(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return logits at an eighth of the image's resolution."""
        return (self.module(x),)

    @torch.no_grad()
    def postprocess(self, logits: torch.Tensor, batch, images) -> np.ndarray:
        """Return (H, W) labels."""
        size = images[0].shape[:2]
        full = nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return full.argmax(1)[0].to(torch.uint8).cpu().numpy()


class _TorchvisionNetwork(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.classifier = model.backbone, model.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.backbone(x)
        return self.classifier(features.get("out", features))


class Detectron2Predictor:
    """A PanopticFPN, run in steps as Detectron2's ``DefaultPredictor`` runs it."""

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.model, self._format = model, cfg.INPUT.FORMAT
        sizes = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
        self._aug = T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TEST)

    def preprocess(self, images) -> list[dict]:
        """Return the model's input; the model itself normalises it."""
        (image,) = images
        if self._format == "RGB":
            image = image[:, :, ::-1]
        height, width = image.shape[:2]
        image = self._aug.get_transform(image).apply_image(image)
        image = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
        return [{"image": image, "height": height, "width": width}]

    @torch.no_grad()
    def network(self, inputs: list[dict]) -> tuple:
        """Return detections and logits at the network's resolution."""
        return self.model.inference(inputs, do_postprocess=False)

    @torch.no_grad()
    def postprocess(self, detections, logits, inputs, images) -> dict:
        """Return the output that the model itself would give."""
        size, model = inputs[0]["image"].shape[-2:], self.model
        output_size = images[0].shape[:2]
        sem_seg = sem_seg_postprocess(logits[0], size, *output_size)
        instances = detector_postprocess(detections[0], *output_size)
        panoptic = combine_semantic_and_instance_outputs(
            instances,
            sem_seg.argmax(dim=0),
            model.combine_overlap_thresh,
            model.combine_stuff_area_thresh,
            model.combine_instances_score_thresh,
        )
        return {"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic}


class OnnxPredictor:
    """A predictor whose network runs in onnxruntime, on the CPU with PyTorch's threads."""

    def __init__(self, predictor, size: tuple[int, int]):
        """
        Args:
            predictor: a ``Predictor`` of a semantic model, or a :class:`TorchvisionPredictor`, on
                the CPU.
            size: (H, W) of the images.

        Raises:
            ValueError: onnxruntime is not installed, or the model is not semantic.
        """
        self.preprocess, self._predictor = predictor.preprocess, predictor
        batch = predictor.preprocess([np.zeros((*size, 3), np.uint8)])
        if isinstance(predictor, TorchvisionPredictor):
            module = predictor.module
        elif isinstance(predictor, Predictor) and not hasattr(predictor.model, "roi_heads"):
            module = _SemanticNetwork(predictor.model).eval()
        else:
            raise ValueError("--onnxruntime runs semantic models; this one is panoptic")
        self._session = onnx_session(module, _input(batch))

    def network(self, batch) -> tuple:
        """Return the logits."""
        return (torch.from_numpy(self._session.run(None, {"image": _input(batch).numpy()})[0]),)

    def postprocess(self, logits, batch, images):
        """Return the predictor's result for the logits."""
        more = () if isinstance(self._predictor, TorchvisionPredictor) else (None,)
        return self._predictor.postprocess(logits, *more, batch, images)


class _SemanticNetwork(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return run_trunk(self.model, x)[1]


def _input(batch) -> torch.Tensor:
    return batch if isinstance(batch, torch.Tensor) else batch.tensor


def build_predictor(
    source: str, size: tuple[int, int], device: str, *, detections: int = 20, **options
):
    """Return a predictor with random weights for images of one size.

    Args:
        source: a config file, "torchvision:<name>", or "detectron2:<name>" for a PanopticFPN of
            Detectron2's model zoo.
        size: (H, W) of the images, which are not resized.
        device: "cpu" or "cuda".
        detections: number of objects that a panoptic model is made to find.
        options: options of :class:`~eseg_d2.inference.Predictor`; torchvision's models use only
            ``channels_last``, and Detectron2's none.

    Raises:
        ValueError: the config is wrong, or the model is neither semantic nor panoptic.
    """
    if source.startswith("torchvision:"):
        name = source.removeprefix("torchvision:")
        layout = {"channels_last": options.get("channels_last", True)}
        return TorchvisionPredictor(name, num_classes=19, device=device, **layout)
    cfg = panoptic_config(source, device)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = min(size), max(size)
    kind = cfg.MODEL.META_ARCHITECTURE
    if kind not in ("SemanticSegmentor", "PanopticRCNN", "PanopticFPN"):
        raise ValueError(f"{source} is {kind}; expected a semantic or panoptic model")
    model = build_model(cfg).eval()
    if kind != "SemanticSegmentor":
        _fix_detections(model, detections, size)
    if kind == "PanopticFPN":
        return Detectron2Predictor(cfg, model)
    return Predictor.from_model(cfg, model, **options)


def panoptic_config(source: str, device: str) -> CfgNode:
    """Load a config file, or "detectron2:<name>" of its model zoo, for random weights."""
    if not source.startswith("detectron2:"):
        cfg = load_config(source, ["MODEL.DEVICE", device])
    else:
        cfg = get_cfg()
        cfg.merge_from_file(get_config_file(source.removeprefix("detectron2:")))
        cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""  # the weights do not affect the speed
    return cfg


def _fix_detections(model: nn.Module, count: int, size: tuple[int, int]) -> None:
    """Make a panoptic model find ``count`` objects, of the same sizes in every model.

    What random weights find is still computed, and then replaced by boxes of a sixteenth of the
    image's area, all over the image.
    """
    predictor = model.roi_heads.box_predictor
    infer = predictor.inference

    def inference(predictions, proposals):
        _, kept = infer(predictions, proposals)
        generator = torch.Generator().manual_seed(0)
        scale = torch.tensor([size[1], size[0]])
        corners = torch.rand(count, 2, generator=generator) * 0.75 * scale
        boxes = torch.cat([corners, corners + scale / 4], 1)
        found = []
        for proposal in proposals:
            device = proposal.proposal_boxes.device
            instances = Instances(proposal.image_size)
            instances.pred_boxes = Boxes(boxes.to(device))
            instances.scores = torch.linspace(0.95, 0.6, count, device=device)
            instances.pred_classes = torch.arange(count, device=device) % predictor.num_classes
            found.append(instances)
        return found, kept

    predictor.inference = inference


def benchmark_models(
    predictors: dict[str, object], size: tuple[int, int], *, repeats: int, device: str
) -> list[dict]:
    """Time each step of each predictor on one image, the predictors in turns.

    Args:
        predictors: predictors by name, with ``preprocess``, ``network`` and ``postprocess``.
        size: (H, W) of the image.
        repeats: timed rounds, after one to warm up.
        device: "cpu" or "cuda".

    Returns:
        For each predictor {"name", "size", "seconds": {step: {"median", "min", "max"}},
        "images_per_second", "peak_bytes", "speedup"}: seconds of the STEPS, where the total is
        measured as a whole; PyTorch's peak memory beyond weights and image; and the speed relative
        to the last predictor.
    """
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    calls = {}
    for name, predictor in predictors.items():
        batch = predictor.preprocess([image])
        raw = predictor.network(batch)
        steps = {
            "preprocess": lambda p=predictor: p.preprocess([image]),
            "network": lambda p=predictor, x=batch: p.network(x),
            "postprocess": lambda p=predictor, y=raw, x=batch: p.postprocess(*y, x, [image]),
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
    batch = predictor.preprocess([image])
    return predictor.postprocess(*predictor.network(batch), batch, [image])


def format_models(rows: list[dict]) -> str:
    """Return a Markdown table of medians in milliseconds, with the spread of the total."""
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
    """Return a Markdown table of the operations in which the network spends most of its time.

    Args:
        predictor: see :func:`benchmark_models`.
        size: (H, W) of the image.
        device: "cpu" or "cuda".
    """
    batch = predictor.preprocess([np.zeros((*size, 3), np.uint8)])
    rows = slowest_operations(lambda: predictor.network(batch), device, 6)
    cells = [[name, f"{share:.0%}", f"{calls}"] for name, share, calls in rows]
    return markdown_table(["operation", "time", "calls"], cells)
