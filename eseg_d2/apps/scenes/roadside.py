"""What lines the street: houses and hedges in perspective, and the far end of the view."""

import numpy as np

from .camera import Camera
from .drawing import Drawable, Part
from .props import LEAVES, tree, vary
from .street import Side, Street
from .vehicles import Place

__all__ = ["backdrop", "roadside"]

_WALLS = (
    (206, 178, 140), (188, 106, 84), (214, 206, 192), (150, 158, 168), (226, 196, 110),
    (170, 130, 110), (132, 150, 136), (200, 150, 140), (110, 96, 92), (176, 186, 200),
)  # fmt: skip
_ROOFS = ((142, 62, 48), (88, 74, 70), (110, 50, 44), (80, 86, 96))


def _quad(camera: Camera, corners) -> np.ndarray:
    return camera.project(np.array(corners, float))


def _window_grid(
    rng: np.random.Generator, length: float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return windows as (N, 4) rectangles (along, up, along, up) in metres, and kinds (N,)."""
    pitch, storey = rng.uniform(1.9, 2.8), rng.uniform(2.6, 3.2)
    width, tall = pitch * rng.uniform(0.4, 0.7), storey * rng.uniform(0.45, 0.6)
    columns = np.arange(pitch / 2, length - width / 2, pitch)
    floors = np.arange(0, max(height - storey * 0.8, 0.1), storey) + 0.9
    along, up = (grid.ravel() for grid in np.meshgrid(columns, floors))
    rects = np.stack([along - width / 2, up, along + width / 2, up + tall], -1)
    return rects, rng.choice(3, len(rects), p=(0.6, 0.25, 0.15))


def _windows(rng, camera, length: float, height: float, wall) -> list[Part]:
    """Return the parts of windows; ``wall`` maps (along, up) arrays to world points."""
    rects, kinds = _window_grid(rng, length, height)
    if not len(rects):
        return []
    along, up = rects[:, [0, 2, 2, 0]], rects[:, [1, 1, 3, 3]]
    quads = camera.project(wall(along, up))
    tones = ((62, 72, 86), (150, 176, 196), (226, 206, 150))
    dim = rng.uniform(0.7, 1.1)
    return [
        Part(list(quads[kinds == kind]), tuple(dim * c for c in tone), detail=True)
        for kind, tone in enumerate(tones)
        if (kinds == kind).any()
    ]


def _passage(rng, camera: Camera, x: float, z0: float, z1: float) -> Drawable:
    """Return a dark passage through a house, unlabeled because nothing in it can be made out."""
    middle, half = rng.uniform(z0 + 1.6, z1 - 1.6), rng.uniform(1.0, 1.5)
    corners = [(x, 0, middle - half), (x, 0, middle + half), (x, 3, middle + half),
               (x, 3, middle - half)]  # fmt: skip
    return Drawable("unlabeled", middle, [Part([_quad(camera, corners)], (34, 31, 32))])


def _house(rng, camera: Camera, side: Side, z0: float, z1: float) -> list[Drawable]:
    x = side.sign * (side.line + rng.uniform(0, 0.6))
    back = x + side.sign * rng.uniform(8, 12)
    height = rng.uniform(4.0, 13.0)
    color, roof = vary(rng, _WALLS), vary(rng, _ROOFS)
    front = [(x, 0, z0), (back, 0, z0), (back, height, z0), (x, height, z0)]
    wall = [(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)]
    parts = [Part([_quad(camera, wall)], tuple(color * (0.92 + 0.1 * side.sign)))]
    if rng.random() < 0.7:
        ridge, rise = x + side.sign * 2.5, height + rng.uniform(1.0, 2.4)
        slope = [(x, height, z0), (x, height, z1), (ridge, rise, z1), (ridge, rise, z0)]
        parts.append(Part([_quad(camera, slope)], tuple(roof)))
        gable = [(x, height, z0), (ridge, rise, z0), (back, rise, z0), (back, height, z0)]
        parts.append(Part([_quad(camera, gable)], tuple(roof * 0.8)))
    parts.append(Part([_quad(camera, front)], tuple(color * 0.78)))
    base = [(x, 0, z0), (x, 0, z1), (x, 0.5, z1), (x, 0.5, z0)]
    parts.append(Part([_quad(camera, base)], tuple(color * 0.7), detail=True))

    def side_wall(along, up):
        return np.stack([np.full_like(along, x), up, z0 + along], -1)

    def front_wall(along, up):
        return np.stack([x + side.sign * along, up, np.full_like(along, z0)], -1)

    parts += _windows(rng, camera, z1 - z0, height, side_wall)
    if abs(x) > abs(camera.x):
        parts += _windows(rng, camera, abs(back - x), height, front_wall)
    drawables = [Drawable("building", z0, parts)]
    if rng.random() < 0.08 and z1 - z0 > 6 and z0 > 6:
        drawables.append(_passage(rng, camera, x, z0, z1))
    return drawables


def _hedge(rng, camera: Camera, side: Side, z0: float, z1: float) -> Drawable:
    x, height = side.sign * side.line, rng.uniform(0.8, 2.2)
    back = x + side.sign * 1.5
    color = vary(rng, LEAVES)
    faces = (
        ([(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)], 1.0),
        ([(x, height, z0), (x, height, z1), (back, height, z1), (back, height, z0)], 1.15),
        ([(x, 0, z0), (back, 0, z0), (back, height, z0), (x, height, z0)], 0.8),
    )
    parts = [Part([_quad(camera, corners)], tuple(color * light)) for corners, light in faces]
    return Drawable("vegetation", z0, parts)


def roadside(rng: np.random.Generator, camera: Camera, street: Street) -> list[Drawable]:
    """Return the houses, or hedges and trees, along both sides; farthest first."""
    drawables = []
    for side in street.sides:
        blocks, z = [], 0.75 * camera.near
        while z < street.length:
            end = min(z + rng.uniform(6, 15), street.length)
            if street.crossing is not None and z < street.crossing[1] and end > street.crossing[0]:
                end = max(street.crossing[0], z + 0.5)
                follow = street.crossing[1]
            else:
                follow = end
            if side.park or rng.random() < 0.12:
                blocks.append([_hedge(rng, camera, side, z, end)])
                row = np.arange(max(z, 4.0), end, rng.uniform(3.5, 6.0))
                spots = [side.sign * (side.line + rng.uniform(1.5, 4.0)) for _ in row]
                places = [Place(x, far, 0.0) for x, far in zip(spots, row, strict=True)]
                blocks += [[tree(rng, camera, place)] for place in places]
            else:
                blocks.append(_house(rng, camera, side, z, end))
            z = follow
        drawables += [drawable for block in reversed(blocks) for drawable in block]
    return drawables


def backdrop(rng: np.random.Generator, camera: Camera, street: Street) -> list[Drawable]:
    """Return what closes the view at the street's end: a row of houses in front of far woods."""
    z = street.length + 30
    xs = np.linspace(-2.2 * z, 2.2 * z, 60)
    tops = rng.uniform(4, 7) + np.abs(rng.normal(0, 1.5, 60))
    outline = np.stack([xs, tops, np.full(60, z)], -1)
    foot = np.array([(xs[-1], 0, z), (xs[0], 0, z)])
    wood = camera.project(np.concatenate([outline, foot]))
    drawables = [Drawable("vegetation", z, [Part([wood], tuple(vary(rng, LEAVES)))])]
    x, z = -30.0, street.length + 4
    while x < 30:
        width, height = rng.uniform(7, 14), rng.uniform(5, 13)
        if rng.random() < 0.65:
            corners = [(x, 0, z), (x + width, 0, z), (x + width, height, z), (x, height, z)]
            wall = Part([_quad(camera, corners)], tuple(vary(rng, _WALLS) * 0.9))

            def front(along, up, x=x, z=z):
                return np.stack([x + along, up, np.full_like(along, z)], -1)

            parts = [wall, *_windows(rng, camera, width, height, front)]
            drawables.append(Drawable("building", z, parts))
        x += width
    return drawables
