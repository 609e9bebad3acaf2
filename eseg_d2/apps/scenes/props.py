"""Trees, lamps, signs and street furniture, drawn flat at their distance."""

import numpy as np

from .camera import Camera
from .drawing import Drawable, Part, capsule, ellipse
from .vehicles import Place

__all__ = ["LEAVES", "lamp", "sign", "street_furniture", "stroller", "tree", "vary"]

LEAVES = ((66, 104, 46), (84, 122, 52), (52, 90, 52), (108, 124, 56), (120, 96, 44))
"""RGB of foliage."""


def vary(rng: np.random.Generator, choices) -> np.ndarray:
    """Draw one of the RGB ``choices`` and vary its brightness and hue a little."""
    color = np.asarray(choices[rng.integers(len(choices))], float)
    return color * rng.uniform(0.85, 1.15) + rng.uniform(-8, 8, 3)


_ARC = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_ARC), np.sin(_ARC)], -1)


def _crown(rng, center, radius_x: float, radius_y: float) -> np.ndarray:
    """Return a cloud-like outline (40, 2)."""
    waves = rng.integers(3, 9, (3, 1)) * _ARC + rng.uniform(0, 2 * np.pi, (3, 1))
    reach = 0.9 + 0.06 * np.cos(waves).sum(0) + rng.uniform(-0.06, 0.06, 40)
    return center + reach[:, None] * _CIRCLE * (radius_x, radius_y)


def tree(rng: np.random.Generator, camera: Camera, place: Place) -> Drawable:
    """Return a broad-leaved tree or a conifer; trunk and crown are one region."""
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    trunk = rng.uniform(1.6, 2.6) * scale
    color, bark = vary(rng, LEAVES), (92, 72, 54)
    thick = max(0.13 * scale, 0.006 * camera.height)
    parts = [Part([capsule(foot, foot - (0, trunk), thick, 0.8 * thick)], bark)]
    if rng.random() < 0.25:
        half, tall = rng.uniform(0.9, 1.5) * scale, rng.uniform(1.3, 1.7) * scale
        for level in range(3):
            base, shrink = foot[1] - 0.6 * trunk - level * 0.7 * tall, 1 - 0.25 * level
            tip = (foot[0], base - tall)
            row = np.array([(-half * shrink, base), (half * shrink, base)]) + (foot[0], 0)
            parts.append(Part([np.array([*row, tip])], tuple(color * (0.75 + 0.12 * level))))
    else:
        radius_x, radius_y = rng.uniform(1.2, 2.2) * scale, rng.uniform(1.2, 2.0) * scale
        middle = foot - (0, trunk + 0.75 * radius_y)
        parts.append(Part([_crown(rng, middle, radius_x, radius_y)], tuple(color * 0.82)))
        for _ in range(6 if scale > 0.04 * camera.height else 2):
            spot = middle + rng.uniform(-0.45, 0.45, 2) * (radius_x, radius_y)
            light = rng.uniform(0.8, 1.0) - 0.28 * (spot[1] - middle[1]) / radius_y
            size = rng.uniform(0.25, 0.45)
            blob = _crown(rng, spot, size * radius_x, size * radius_y)
            parts.append(Part([blob], tuple(color * light), detail=True))
    return Drawable("vegetation", place.z, parts)


def _post(camera: Camera, foot, scale: float, tall: float, radius: float) -> np.ndarray:
    thick = max(radius * scale, 0.0105 * camera.height)
    top = foot - (0, tall * scale)
    return np.array([foot - (thick, 0), foot + (thick, 0), top + (thick, 0), top - (thick, 0)])


def lamp(rng: np.random.Generator, camera: Camera, place: Place) -> Drawable:
    """Return a street lamp whose arm reaches over the carriageway."""
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    tall, toward = rng.uniform(4.2, 6.0), -np.sign(place.x)
    color = vary(rng, ((92, 96, 100), (60, 70, 64), (140, 142, 144)))
    top = foot - (0, tall * scale)
    tip = top + (toward * 1.3 * scale, -0.15 * scale)
    thick = max(0.08 * scale, 0.008 * camera.height)
    head = ellipse(tip, max(0.34 * scale, 2 * thick), max(0.13 * scale, 1.2 * thick), 10)
    parts = [
        Part([_post(camera, foot, scale, tall, 0.13)], tuple(color)),
        Part([capsule(top, tip, thick, thick)], tuple(color)),
        Part([head], (214, 206, 170)),
    ]
    return Drawable("pole", place.z, parts)


def _plate(rng, center, radius: float) -> list[Part]:
    red, blue, white = (200, 34, 36), (30, 70, 168), (236, 236, 232)
    shape = rng.integers(5)
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.85
    if shape == 0:  # prohibition
        disc = Part([ellipse(center, radius, radius, 20)], red)
        return [disc, Part([ellipse(center, 0.65 * radius, 0.65 * radius, 20)], white)]
    if shape == 1:  # mandatory
        arrow = np.array([(-0.15, 0.5), (0.15, 0.5), (0.15, 0), (0.4, 0), (0, -0.6), (-0.4, 0),
                          (-0.15, 0)])  # fmt: skip
        return [Part([ellipse(center, radius, radius, 20)], blue),
                Part([center + radius * arrow], white)]  # fmt: skip
    if shape == 2:  # warning
        triangle = np.array([(-1, 0.75), (1, 0.75), (0, -1)])
        inner = triangle * 0.55 + (0, 0.06)
        return [Part([center + radius * triangle], red), Part([center + radius * inner], white)]
    if shape == 3:  # information
        return [Part([center + radius * square], blue),
                Part([center + radius * 0.5 * square], white)]  # fmt: skip
    diamond = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # priority road
    return [Part([center + radius * diamond], white),
            Part([center + 0.7 * radius * diamond], (236, 190, 40))]  # fmt: skip


def sign(rng: np.random.Generator, camera: Camera, place: Place) -> list[Drawable]:
    """Return a post and the traffic sign on it, as two regions."""
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    tall = rng.uniform(2.2, 2.9)
    post = Part([_post(camera, foot, scale, tall, 0.08)], (132, 134, 138))
    radius = max(rng.uniform(0.34, 0.5) * scale, 0.022 * camera.height)
    center = foot - (0, tall * scale)
    return [
        Drawable("pole", place.z, [post]),
        Drawable("traffic sign", place.z, _plate(rng, center, radius)),
    ]


def street_furniture(rng: np.random.Generator, camera: Camera, place: Place) -> Drawable:
    """Return a litter bin, a junction box or a bench: Cityscapes' void label "static"."""
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    half, tall = ((0.28, 0.95), (0.55, 1.3), (0.85, 0.5))[rng.integers(3)]
    color = vary(rng, ((70, 86, 74), (120, 122, 124), (110, 84, 60)))
    box = np.array([(-half, 0), (half, 0), (half, -tall), (-half, -tall)])
    lid = np.array([(-half, -tall), (half, -tall), (half, -tall - 0.1), (-half, -tall - 0.1)])
    parts = [
        Part([foot + scale * box], tuple(color)),
        Part([foot + scale * 1.04 * lid], tuple(color * 0.7)),
    ]
    return Drawable("static", place.z, parts)


def stroller(rng: np.random.Generator, camera: Camera, place: Place) -> Drawable:
    """Return a pram that nobody pushes: Cityscapes' void label "dynamic"."""
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    color = vary(rng, ((70, 60, 110), (150, 50, 60), (60, 100, 110)))
    tub = np.array([(-0.4, -0.75), (0.4, -0.75), (0.3, -0.35), (-0.3, -0.35)])
    arc = np.linspace(np.pi, 2 * np.pi, 10)
    hood = np.stack([-0.08 + 0.32 * np.cos(arc), -0.73 + 0.35 * np.sin(arc)], -1)
    wheels = [ellipse(foot + scale * np.array([x, -0.18]), 0.18 * scale, 0.18 * scale)
              for x in (-0.26, 0.26)]  # fmt: skip
    handle = capsule(foot + scale * np.array([0.38, -0.7]), foot + scale * np.array([0.62, -1.0]),
                     0.04 * scale, 0.04 * scale)  # fmt: skip
    legs = foot + scale * np.array([(-0.3, -0.4), (0.3, -0.4), (0.28, -0.15), (-0.28, -0.15)])
    parts = [
        Part([legs], (60, 60, 62)),
        *(Part([wheel], (40, 40, 42)) for wheel in wheels),
        Part([handle], (50, 50, 52)),
        Part([foot + scale * tub], tuple(color)),
        Part([foot + scale * hood], tuple(color * 0.75)),
    ]
    return Drawable("dynamic", place.z, parts)
