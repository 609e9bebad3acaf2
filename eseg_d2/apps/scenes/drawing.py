"""Drawables: coloured polygons in pixels, their silhouettes, and how they are painted."""

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["Drawable", "Part", "capsule", "ellipse", "hull", "paint", "ring", "silhouette"]

_SHIFT = 4
"""Fractional bits of OpenCV's fixed-point coordinates."""


@dataclass
class Part:
    """Polygons of one colour.

    Attributes:
        polygons: float arrays (N, 2), pixels (column, row); filled together by the even-odd rule.
        color: RGB, 0..255, before haze and light.
        detail: whether it lies inside the silhouette of the other parts.
    """

    polygons: list[np.ndarray]
    color: tuple[float, float, float]
    detail: bool = False


@dataclass
class Drawable:
    """One object or region of a scene.

    Attributes:
        label: name of the Cityscapes label.
        depth: distance in metres; it determines the painting order and the haze.
        parts: what is drawn, in this order.
        group: whether it is several things drawn as one, Cityscapes' "<label>group".
    """

    label: str
    depth: float
    parts: list[Part]
    group: bool = False


def _fixed(polygon: np.ndarray) -> np.ndarray:
    return np.rint(polygon * (1 << _SHIFT)).astype(np.int32)


def capsule(p, q, start_radius: float, end_radius: float, points: int = 4) -> np.ndarray:
    """Return a limb from ``p`` to ``q`` with round ends, as a polygon (2 * points, 2)."""
    p, q = np.asarray(p, float), np.asarray(q, float)
    angle = np.arctan2(q[1] - p[1], q[0] - p[0])
    arc = angle + np.linspace(-np.pi / 2, np.pi / 2, points)
    unit = np.stack([np.cos(arc), np.sin(arc)], -1)
    return np.concatenate([q + end_radius * unit, p - start_radius * unit])


def ellipse(center, radius_x: float, radius_y: float, points: int = 14) -> np.ndarray:
    """Return an ellipse as a polygon (points, 2)."""
    arc = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.asarray(center) + np.stack([radius_x * np.cos(arc), radius_y * np.sin(arc)], -1)


def ring(center, radius_x: float, radius_y: float, thickness: float) -> list[np.ndarray]:
    """Return an outer and, if there is room, an inner ellipse: a ring if filled even-odd."""
    inner_x, inner_y = radius_x - thickness, radius_y - thickness
    rings = [ellipse(center, radius_x, radius_y, 20)]
    if min(inner_x, inner_y) > 0.3 * thickness:
        rings.append(ellipse(center, inner_x, inner_y, 20))
    return rings


def hull(points: np.ndarray) -> np.ndarray:
    """Return the convex hull (M, 2) of pixels (N, 2)."""
    return cv2.convexHull(np.asarray(points, np.float32))[:, 0]


def silhouette(drawable: Drawable, height: int, width: int) -> list[np.ndarray]:
    """Return the outlines of the pixels that ``drawable`` covers.

    Holes are filled, as annotators fill them. Specks of fewer than three corners are left out.

    Returns:
        int32 arrays (N, 1, 2), N >= 3, pixels (column, row) inside the image, largest first; empty
        if out of view.
    """
    polygons = [p for part in drawable.parts if not part.detail for p in part.polygons]
    corners = np.concatenate(polygons)
    low = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, (width, height))
    if (high <= low).any():
        return []
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [_fixed(polygon - low)], 1, shift=_SHIFT)
    offset = (int(low[0]), int(low[1]))
    found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    areas = [contour for contour in found if len(contour) >= 3]
    return sorted(areas, key=cv2.contourArea, reverse=True)


def paint(image: np.ndarray, drawable: Drawable, haze: np.ndarray, clearness: float) -> None:
    """Draw ``drawable`` into the uint8 RGB image in place, anti-aliased.

    Args:
        image: (H, W, 3).
        drawable: what to draw.
        haze: (3,) RGB that distant things fade to.
        clearness: distance in metres over which 63 % of a colour fades to haze.
    """
    keep = np.exp(-drawable.depth / clearness)
    for part in drawable.parts:
        mixed = (keep * c + (1 - keep) * h for c, h in zip(part.color, haze, strict=True))
        color = [min(max(float(c), 0.0), 255.0) for c in mixed]
        polygons = [_fixed(p) for p in part.polygons]
        cv2.fillPoly(image, polygons, color, cv2.LINE_AA, shift=_SHIFT)
