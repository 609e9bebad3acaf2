"""Show where a pixel takes its context from, level by level, as in figure 1 of the RSP paper."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from eseg_d2.modeling.backbone.rsp_pyramid import RSPPyramid
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead

__all__ = [
    "context_maps",
    "draw_context",
    "find_rsp",
    "image_relation_weights",
    "pixel_context",
    "window",
]

ZOOM = 2.5  # extent of a panel, as a multiple of the region's extent


def find_rsp(model: nn.Module) -> RSPHead | RSPPyramid:
    """Return the RSP head or RSP pyramid of a model; its ``common_stride`` is the lowest level's.

    Raises:
        ValueError: the model has neither.
    """
    for module in getattr(model, "sem_seg_head", None), getattr(model, "backbone", None):
        if isinstance(module, (RSPHead, RSPPyramid)) and module.propagators:
            return module
    raise ValueError(
        "this model has no RSP head on several levels (MODEL.SEM_SEG_HEAD.NAME 'RSPHead') and no "
        "RSP pyramid (MODEL.BACKBONE.NAME 'build_rsp_backbone'): only these have relations"
    )


def image_relation_weights(predictor, image: np.ndarray) -> tuple[dict, tuple[int, int]]:
    """Run a model on an image and return its relation weights.

    Args:
        predictor: Detectron2's ``DefaultPredictor``, or ours, of a model with RSP.
        image: (H, W, 3) uint8 BGR.

    Returns:
        The relation weights by level, the lowest first (see ``RSE.relation_weights``), and the
        (H, W) at which the model saw the image.

    Raises:
        ValueError: see :func:`find_rsp`.
    """
    weights = {}

    def keep(name, rse, levels):
        weights[name] = rse.relation_weights(*levels)

    propagators = find_rsp(predictor.model).propagators
    handles = [
        propagator.get_submodule("rse").register_forward_pre_hook(partial(keep, name))
        for name, propagator in propagators.items()
    ]
    try:
        predictor(image)
    finally:
        for handle in handles:
            handle.remove()
    seen = predictor.aug.get_transform(image).apply_image(image).shape[:2]
    return {name: weights[name] for name in propagators}, seen


def context_maps(weights: Sequence[torch.Tensor], position: tuple[int, int]) -> list[np.ndarray]:
    """Return how much each cell of each higher level contributes to a pixel's context.

    The pixel weights a region of the next level, whose cells have themselves taken context from the
    level above: the maps of the levels are products of the relations.

    Args:
        weights: weights of one image for each level, lowest first: (1, heads, k * k, h, w).
        position: (row, column) of the pixel in the lowest level.

    Returns:
        For each level above the lowest, (ceil(h / 2), ceil(w / 2)) float; each sums to 1.
    """
    share = torch.zeros(weights[0].shape[-2:])
    share[position] = 1
    maps = []
    for level in weights:
        mean = level[0].float().mean(0).cpu()  # over heads
        k = round(len(mean) ** 0.5)
        contributions = mean * share
        h, w = contributions.shape[-2:]
        even = F.pad(contributions, (0, w % 2, 0, h % 2))
        by_cell = F.avg_pool2d(even, 2) * 4
        size = by_cell.shape[-2:]
        folded = F.fold(by_cell.flatten(1)[None], size, k, padding=k // 2)
        share = folded[0, 0]
        maps.append(share.numpy())
    return maps


def pixel_context(
    weights: Sequence[torch.Tensor],
    pixel: tuple[int, int],
    image_size: Sequence[int],
    seen_size: tuple[int, int],
    stride: int,
) -> tuple[list[np.ndarray], list[int]]:
    """Return the :func:`context_maps` of a pixel of the original image, and their strides.

    Args:
        weights: see :func:`context_maps`.
        pixel: (row, column) in the image.
        image_size, seen_size: (H, W) of the image, and at which the model saw it.
        stride: of the lowest level, in pixels of the image as the model saw it.
    """
    row, column = (int((pixel[i] + 0.5) * seen_size[i] / image_size[i]) // stride for i in (0, 1))
    maps = context_maps(weights, (row, column))
    return maps, [stride * 2 ** (level + 1) for level in range(len(maps))]


def draw_context(
    image: np.ndarray,
    pixel: tuple[int, int],
    maps: Sequence[np.ndarray],
    strides: Sequence[int],
    seen_size: tuple[int, int],
    path: str,
) -> None:
    """Draw the image with the pixel, and each level's map over the pixel's surroundings.

    Args:
        image: (H, W, 3) uint8 RGB.
        pixel: (row, column) in the image.
        maps: maps from :func:`context_maps`.
        strides: strides of the maps' levels, in pixels of the image as the model saw it.
        seen_size: (H, W) at which the model saw the image.
        path: path of the picture to write, in png or any other format of matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(len(maps) + 1, 4)
    rows = -(-(len(maps) + 1) // columns)
    aspect = image.shape[0] / image.shape[1]
    figure = Figure(figsize=(4.5 * columns, (4.5 * aspect + 0.5) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    scale = image.shape[0] / seen_size[0], image.shape[1] / seen_size[1]
    windows = []
    for panel, share, stride in zip(panels[1:], maps, strides, strict=False):
        cell = stride * scale[0], stride * scale[1]
        extent = (0, share.shape[1] * cell[1], share.shape[0] * cell[0], 0)
        panel.imshow(grey, extent=(0, image.shape[1], image.shape[0], 0))
        strength = share / share.max()
        panel.imshow(
            strength, extent=extent, cmap="inferno", alpha=0.75 * np.sqrt(strength), vmin=0, vmax=1
        )
        panel.set_title(f"stride {stride}: {(share > 0).sum()} cells")
        windows.append(window(share, cell, image.shape[:2]))
        top, bottom, left, right = windows[-1]
        panel.set(xlim=(left, right), ylim=(bottom, top))
    panels[0].imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
    panels[0].set_title(f"row {pixel[0]}, column {pixel[1]}")
    for top, bottom, left, right in windows:
        panels[0].add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, color="white", lw=0.8)
        )
    for panel in panels:
        panel.set_axis_off()
    for panel in panels[: len(maps) + 1]:
        panel.plot(pixel[1] + 0.5, pixel[0] + 0.5, "x", color="cyan", markersize=9, mew=2)
    figure.savefig(path, dpi=110)


def window(
    share: np.ndarray, cell: tuple[float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return a window around the cells that contribute.

    Args:
        share: map of a level, from :func:`context_maps`.
        cell, size: (H, W) of the map's cells and of the image, in pixels of the image.

    Returns:
        Top, bottom, left and right in pixels, inside the image and with its aspect ratio.
    """
    rows, columns = np.nonzero(share)
    top, bottom = rows.min() * cell[0], (rows.max() + 1) * cell[0]
    left, right = columns.min() * cell[1], (columns.max() + 1) * cell[1]
    part = min(ZOOM * max((bottom - top) / size[0], (right - left) / size[1]), 1)
    height, width = part * size[0], part * size[1]
    y = np.clip((top + bottom - height) / 2, 0, size[0] - height)
    x = np.clip((left + right - width) / 2, 0, size[1] - width)
    return y, y + height, x, x + width
