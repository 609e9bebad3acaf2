"""The ground: carriageway, sidewalks and grass as strips in perspective, with their shadows."""

import cv2
import numpy as np

from .camera import Camera
from .drawing import Drawable, Part
from .street import Item, Side, Street

__all__ = ["base_color", "ground_drawables", "shadow_mask"]

_FAR = 160.0
_COLORS = {
    "asphalt": (98, 98, 102),
    "concrete": (158, 155, 148),
    "pavers": (160, 132, 116),
    "cobbles": (126, 120, 114),
    "grass": (98, 134, 66),
}
_MARK = (222, 222, 214)


def base_color(street: Street, label: str) -> tuple:
    """Return the RGB of the ground labelled ``label``, without texture and light."""
    return tuple(street.tints[label] * c for c in _COLORS[street.materials[label]])


def _flat(camera: Camera, x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """Return a rectangle on the ground, in pixels."""
    return camera.project(np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)]))


def _strip(camera: Camera, side: Side, inner: float, outer: float) -> np.ndarray:
    return _flat(camera, side.sign * inner, side.sign * outer, camera.near, _FAR)


def _sidewalk(camera: Camera, street: Street, side: Side) -> Drawable:
    color = base_color(street, "sidewalk")
    edge = tuple(min(1.25 * c, 235) for c in color)
    joint = tuple(0.8 * c for c in color)
    return Drawable(
        "sidewalk",
        0.0,
        [
            Part([_strip(camera, side, side.inner, side.outer)], color),
            Part([_strip(camera, side, side.inner, side.inner + 0.22)], edge, detail=True),
            Part([_strip(camera, side, side.outer - 0.1, side.outer)], joint, detail=True),
        ],
    )


def _marks(camera: Camera, street: Street) -> list[Part]:
    polygons = []
    if street.lane_marks:
        polygons += [_flat(camera, -0.1, 0.1, z, z + 2.5) for z in np.arange(3.0, 60.0, 6.0)]
        for side in street.sides:
            inner = side.curb - 0.45
            polygons.append(_strip(camera, side, inner, inner + 0.14))
    if street.zebra is not None:
        left, right = (side.sign * side.curb for side in street.sides)
        stripes = np.arange(left + 0.4, right - 0.7, 1.0)
        polygons += [_flat(camera, x, x + 0.5, street.zebra, street.zebra + 2.6) for x in stripes]
    return [Part([polygon], _MARK, detail=True) for polygon in polygons]


def ground_drawables(camera: Camera, street: Street) -> list[Drawable]:
    """Return everything flat in painting order: later ones lie over earlier ones."""
    grass = base_color(street, "terrain")
    meadow = Part([_flat(camera, -_FAR * 2, _FAR * 2, camera.near, _FAR)], grass)
    drawables = [Drawable("terrain", 0.0, [meadow])]
    drawables += [_sidewalk(camera, street, side) for side in street.sides]
    left, right = (side.sign * side.curb for side in street.sides)
    road = base_color(street, "road")
    surface = [Part([_flat(camera, left, right, camera.near, _FAR)], road)]
    if street.crossing is not None:
        surface.append(Part([_flat(camera, -60.0, 60.0, *street.crossing)], road))
    drawables.append(Drawable("road", 0.0, surface + _marks(camera, street)))
    return drawables


_FOOTPRINTS = {
    "car": (0.95, 2.2), "truck": (1.25, 3.8), "cargroup": (1.0, 8.0), "tree": (1.4, 1.4),
    "person": (0.35, 0.3), "rider": (0.7, 0.3), "bicycle": (0.7, 0.25), "persongroup": (1.2, 0.6),
    "dynamic": (0.5, 0.35), "static": (0.5, 0.35), "lamp": (0.2, 0.15), "sign": (0.2, 0.15),
}  # fmt: skip
"""Half extents in metres, across and along the heading, of the ground below an item."""


def shadow_mask(
    camera: Camera, street: Street, items: list[Item], sun: int, reach: float
) -> np.ndarray:
    """Return how much light the ground loses.

    Args:
        camera: the view.
        street: its houses cast shadows unless the sky is overcast.
        items: each darkens the ground below it and a little to one side.
        sun: -1 or 1, the side that shadows fall to.
        reach: how far shadows reach in metres; 0 for an overcast sky.

    Returns:
        uint8 (H, W), from 0 (full light) to 255 (full shadow).
    """
    mask = np.zeros((camera.height, camera.width), np.uint8)
    polygons = []
    for side in street.sides:
        if side.sign == -sun and not side.park and reach > 0:
            edge = side.sign * side.line
            polygons.append((_flat(camera, edge, edge + 2.2 * sun * reach, camera.near, 90), 120))
    for item in items:
        across, along = _FOOTPRINTS[item.kind]
        sin, cos = np.sin(item.place.yaw), np.cos(item.place.yaw)
        half_x = abs(cos) * across + abs(sin) * along
        half_z = abs(sin) * across + abs(cos) * along
        arc = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        for shift, strength in ((0.0, 200), (sun * reach * 0.8, 120)):
            x = item.place.x + shift + (1.1 * half_x + 0.6 * abs(shift)) * np.cos(arc)
            z = np.maximum(item.place.z + 1.15 * half_z * np.sin(arc), 0.8 * camera.near)
            polygons.append((camera.project(np.stack([x, 0 * x, z], -1)), strength))
    polygons.sort(key=lambda entry: entry[1])
    for polygon, strength in polygons:
        cv2.fillPoly(mask, [np.rint(polygon * 16).astype(np.int32)], strength, cv2.LINE_AA, shift=4)
    return cv2.blur(mask, (max(camera.height // 64, 1) * 2 + 1, max(camera.height // 128, 1)))
