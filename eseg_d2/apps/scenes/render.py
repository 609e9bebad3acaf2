"""Render a scene: a picture and its exact labels from a seed."""

from dataclasses import dataclass

import numpy as np

from . import ground, texture
from .camera import Camera
from .drawing import Drawable, Part, paint
from .labels import LABELS, instance_table, is_hidden, label_map, outlines, paint_order
from .objects import foreground, standing_objects
from .roadside import backdrop, roadside
from .street import Item, Street, sample_items, sample_street
from .texture import Light

__all__ = ["Scene", "SceneObject", "render_scene"]

_ROUGHNESS = np.full(256, 0.03, np.float32)
"""How much the brightness of a surface varies, by label id."""
_ROUGHNESS[LABELS["vegetation"].id] = 0.3
_ROUGHNESS[LABELS["building"].id] = 0.08
_ROUGHNESS[LABELS["sky"].id] = 0.0


@dataclass(frozen=True)
class SceneObject:
    """One outline of a scene, as in Cityscapes' polygon files.

    Attributes:
        label: Cityscapes label name, "<label>group" for a crowd.
        polygon: int array (N, 2), pixels (column, row).
    """

    label: str
    polygon: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A picture with its labels.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        label_ids: uint8 (H, W), Cityscapes label ids.
        instance_ids: uint16 (H, W); label id * 1000 + n for single things, the plain label id for
            stuff, void and groups.
        objects: outlines from back to front; painting them in this order gives the labels.
    """

    image: np.ndarray
    label_ids: np.ndarray
    instance_ids: np.ndarray
    objects: list[SceneObject]


def _paint_ground(
    rng: np.random.Generator,
    image: np.ndarray,
    camera: Camera,
    street: Street,
    items: list[Item],
    light: Light,
) -> list[Drawable]:
    """Draw the bare ground in place: paving, shadows and haze. Return what was drawn."""
    drawables = ground.ground_drawables(camera, street)
    for drawable in drawables:
        paint(image, drawable, light.haze, light.clearness)
    shapes = [outlines(d, camera.height, camera.width) for d in drawables]
    order = paint_order(shapes, camera.height, camera.width)
    label_ids = instance_table(drawables)[order].astype(np.uint8)
    materials = {LABELS[name].id: paving for name, paving in street.materials.items()}
    factor = texture.ground_texture(camera, rng, label_ids, materials)
    shadow = ground.shadow_mask(camera, street, items, light.sun, light.reach)
    top = camera.height - len(factor)
    factor *= 1 - shadow[top:] * np.float32(light.shade / 255)
    rows = np.arange(top, camera.height) + 0.5
    keep = np.exp(-camera.row_distance(rows) / light.clearness).astype(np.float32)[:, None]
    below = image[top:] * (factor * keep)[..., None]
    below += (1 - keep)[..., None] * light.haze.astype(np.float32)
    image[top:] = np.clip(below, 0, 255)
    return drawables


def _sample_lateral(rng: np.random.Generator, street: Street) -> float:
    """Draw the camera's lateral position: mostly in a lane, sometimes on a sidewalk."""
    side = street.sides[rng.integers(2)]
    if rng.random() < 0.2:
        return side.sign * rng.uniform(side.inner, side.outer)
    return side.sign * rng.uniform(0.0, 0.7) * side.curb


def _paint_behind(
    rng: np.random.Generator, camera: Camera, street: Street, items: list[Item], light: Light
) -> tuple[np.ndarray, list[Drawable]]:
    """Draw the sky, the far end of the street and the ground.

    Returns:
        The uint8 (H, W, 3) RGB image so far, and what was drawn.
    """
    width, horizon = camera.width, camera.horizon + 2
    dome = np.array([(-1, -1), (width, -1), (width, horizon), (-1, horizon)])
    image = texture.sky(rng, camera, light).clip(0, 255).astype(np.uint8)
    far = backdrop(rng, camera, street)
    for drawable in far:
        paint(image, drawable, light.haze, light.clearness)
    bare = _paint_ground(rng, image, camera, street, items, light)
    return image, [Drawable("sky", 0.0, [Part([dome], (0, 0, 0))]), *far, *bare]


def render_scene(
    seed: np.random.SeedSequence | np.random.Generator | int, height: int, width: int
) -> Scene:
    """Draw one street scene.

    Args:
        seed: the same seed and size give the same scene, bit for bit. A generator is advanced.
        height: image height in pixels, at least 64.
        width: image width in pixels, at least 64.
    """
    rng = np.random.default_rng(seed)
    street = sample_street(rng)
    camera = Camera.sample(rng, height, width, _sample_lateral(rng, street))
    light = texture.sample_light(rng)
    items = sample_items(rng, camera, street)

    image, behind = _paint_behind(rng, camera, street, items, light)
    upright = roadside(rng, camera, street)
    upright += standing_objects(rng, camera, items)
    upright += foreground(rng, height, width)
    drawables = behind + upright
    shapes = [outlines(drawable, height, width) for drawable in drawables]
    hidden = is_hidden(drawables, shapes, height, width)
    for drawable, skip in zip(upright, hidden[len(behind) :], strict=True):
        if not skip:
            paint(image, drawable, light.haze, light.clearness)
    kept = np.flatnonzero(~hidden)
    drawables, shapes = [drawables[i] for i in kept], [shapes[i] for i in kept]

    instance_ids = instance_table(drawables)[paint_order(shapes, height, width)]
    label_ids = label_map(instance_ids)
    image = texture.photograph(rng, image, light, _ROUGHNESS[label_ids])
    objects = [
        SceneObject(drawable.label + ("group" if drawable.group else ""), contour[:, 0])
        for drawable, contours in zip(drawables, shapes, strict=True)
        for contour in contours
    ]
    return Scene(image, label_ids, instance_ids, objects)
