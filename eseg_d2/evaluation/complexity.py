"""Parameters and multiply-adds of a configured model, by parts, on meta tensors.

One multiply-add counts as one (fvcore's convention; many other counts are twice as high). Counted
are convolutions, matrix products, and the products of the pixel-to-region relation. fvcore itself
traces the model, which PyTorch cannot do on meta tensors; PyTorch's own formulas give the same.
"""

import math
from collections import Counter, defaultdict
from contextlib import contextmanager

import torch
from detectron2.modeling import build_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from eseg_d2.config import load_config
from eseg_d2.layers.relation import PixelToRegionRelation
from eseg_d2.utils.markup import markdown_table

__all__ = ["analyze_config", "count_multiply_adds", "format_table"]

PARTS = ("backbone", "pyramid", "head", "proposals", "roi_heads")
aten = torch.ops.aten
# A product with every element of the result; of use in the relation, a detail elsewhere
RELATION_PRODUCTS = {aten.mul, aten.addcmul, aten.addcmul_, aten.pow}
# Move or make numbers, compute none
NO_ARITHMETIC = {
    *(aten.clone, aten.copy_, aten._to_copy, aten.cat, aten.constant_pad_nd, aten.stack),
    *(aten.zeros, aten.ones, aten.empty, aten.full, aten.fill, aten.fill_, aten.new_zeros),
    *(aten.arange, aten.new_empty_strided, aten.empty_strided, aten.lift_fresh),
    *(aten.detach, aten.scalar_tensor, aten._unsafe_view, aten.repeat, aten.index_select),
    *(aten.new_empty, aten.new_full, aten.empty_like, aten.zeros_like, aten._local_scalar_dense),
}


def analyze_config(config_file: str, size: tuple[int, int], overrides: list[str]) -> dict:
    """Count the model of a configuration for one image, without weights, data or activations.

    Args:
        config_file: a YAML file.
        size: (H, W) of the image in pixels; padded as the model pads it.
        overrides: ``[KEY, VALUE, ...]``.

    Returns:
        ``{"config", "size": [H, W], "params", "macs": {part: count, "total": sum}, "uncounted":
        [{"op", "calls", "elements"}]}`` in plain units. Parts are "backbone" (the bottom-up
        alone), "pyramid", "head" (semantic) and, if there, "proposals" and "roi_heads", for
        MODEL.RPN.POST_NMS_TOPK_TEST proposals and TEST.DETECTIONS_PER_IMAGE masks. The uncounted
        operations compute (norms, activations, pooling, interpolation) but are no products of the
        kinds above; elements are those of their results.

    Raises:
        FileNotFoundError, ValueError: see :func:`eseg_d2.config.load_config`; or the model's
            parts are not known.
    """
    cfg = load_config(config_file, [*overrides, "MODEL.DEVICE", "meta"])
    model = build_model(cfg).eval()
    macs, uncounted = count_multiply_adds(model, cfg, size)
    return {
        "config": config_file,
        "size": [*size],
        "params": sum(p.numel() for p in model.parameters()),
        "macs": {**macs, "total": sum(macs.values())},
        "uncounted": uncounted,
    }


def count_multiply_adds(model, cfg, size: tuple[int, int]) -> tuple[dict[str, int], list[dict]]:
    """Return ``macs`` (without "total") and ``uncounted`` of :func:`analyze_config`.

    Args:
        model, cfg: a model on the device "meta", in evaluation mode, and its config.
        size: (H, W) of the image in pixels.

    Raises:
        ValueError: the model has no backbone, or neither a semantic head nor ROI heads.
    """
    _check_model(model)
    step = max(model.backbone.size_divisibility, 1)
    height, width = (math.ceil(x / step) * step for x in size)
    bottom_up = getattr(model.backbone, "bottom_up", None)
    counter = _Counter()
    with torch.no_grad(), _watch_parts(counter, model, bottom_up), counter:
        counter.part = "pyramid" if bottom_up else "backbone"
        features = model.backbone(torch.zeros(1, 3, height, width, device="meta"))
        if hasattr(model, "sem_seg_head"):
            counter.part = "head"
            model.sem_seg_head(features, None)
        if getattr(model, "proposal_generator", None):
            counter.part = "proposals"
            rpn = model.proposal_generator
            rpn.rpn_head([features[name] for name in rpn.in_features])
        if hasattr(model, "roi_heads"):
            counter.part = "roi_heads"
            _run_roi_heads(model.roi_heads, features, cfg, counter)
    return {part: counter.macs[part] for part in PARTS if part in counter.macs}, counter.rest()


def _check_model(model) -> None:
    heads = ("sem_seg_head", "roi_heads")
    if not (hasattr(model, "backbone") and any(hasattr(model, head) for head in heads)):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {type(model).__name__} cannot be counted: expected a model "
            f"with a backbone and one of {heads}"
        )


def _run_roi_heads(heads, features: dict, cfg, counter: "_Counter") -> None:
    """Run them on maps as if pooled: which box is pooled from where depends on the image."""

    def pooled(pooler, names, count):
        x = features[names[0]].new_zeros(count, features[names[0]].shape[1], *pooler.output_size)
        counter.note_uncounted("torchvision.roi_align", x)
        return x

    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    x = pooled(heads.box_pooler, heads.box_in_features, proposals)
    heads.box_predictor(heads.box_head(x))
    if heads.mask_on:
        x = pooled(heads.mask_pooler, heads.mask_in_features, cfg.TEST.DETECTIONS_PER_IMAGE)
        heads.mask_head.layers(x)


class _Counter(TorchDispatchMode):
    """Counts every operation that reaches PyTorch's dispatcher for the part that is at work.

    Attributes:
        macs: multiply-adds by part.
        part: the part at work.
        in_relation: whether a pixel-to-region relation is.
    """

    def __init__(self):
        super().__init__()
        self.macs: Counter[str] = Counter()
        self.part = ""
        self.in_relation = False
        self._uncounted: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in flop_registry:
            self.macs[self.part] += flop_registry[packet](*args, **kwargs, out_val=out) // 2
        elif self.in_relation and packet in RELATION_PRODUCTS:
            self.macs[self.part] += out.numel()
        elif not func.is_view and packet not in NO_ARITHMETIC:
            self.note_uncounted(str(packet), out)
        return out

    def note_uncounted(self, op: str, out) -> None:
        """Add a call with the result ``out``: of a tuple the first; no tensor is no result."""
        out = out[0] if isinstance(out, (tuple, list)) else out
        if isinstance(out, torch.Tensor):
            entry = self._uncounted[op]
            entry[0] += 1
            entry[1] += out.numel()

    def rest(self) -> list[dict]:
        """Return ``[{"op", "calls", "elements"}]``, most elements first."""
        entries = sorted(self._uncounted.items(), key=lambda item: -item[1][1])
        return [{"op": op, "calls": n, "elements": size} for op, (n, size) in entries]


@contextmanager
def _watch_parts(counter: _Counter, model, bottom_up):
    """Tell the counter when the bottom-up network or a relation is at work."""
    handles = []

    def watch(module, attribute, value):
        before = []

        def enter(*_):
            before.append(getattr(counter, attribute))
            setattr(counter, attribute, value)

        def leave(*_):
            setattr(counter, attribute, before.pop())

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))

    if bottom_up is not None:
        watch(bottom_up, "part", "backbone")
    for module in model.modules():
        if isinstance(module, PixelToRegionRelation):
            watch(module, "in_relation", True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def format_table(results: list[dict]) -> str:
    """Return results of :func:`analyze_config` as a table in Markdown; ratios are to the first."""
    parts = [part for part in PARTS if any(part in r["macs"] for r in results)]
    head = ["config", "M params", *(f"{part} (G)" for part in parts), "total (G)", "ratio"]
    rows = []
    first = results[0]["macs"]["total"]
    for r in results:
        macs = r["macs"]
        by_part = [f"{macs[part] / 1e9:.1f}" if part in macs else "" for part in parts]
        total = [f"{macs['total'] / 1e9:.1f}", f"{macs['total'] / first:.3f}"]
        rows.append([r["config"], f"{r['params'] / 1e6:.2f}", *by_part, *total])
    return markdown_table(head, rows)
