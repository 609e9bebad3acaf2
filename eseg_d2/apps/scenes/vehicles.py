"""Cars and trucks: convex solids made by extruding a side profile, in true perspective."""

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .drawing import Part, hull

__all__ = ["CAR_LENGTH", "TRUCK_LENGTH", "Place", "car_parts", "truck_parts"]

CAR_LENGTH = 4.2
TRUCK_LENGTH = 7.4

_GLASS = (58, 74, 88)
_TYRE = (30, 30, 32)
_PAINTS = (
    (196, 40, 40), (40, 84, 160), (226, 226, 222), (44, 46, 52), (150, 154, 160), (220, 178, 44),
    (56, 126, 84), (106, 160, 196), (130, 60, 40), (200, 110, 50),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where something stands: ground point (x, z) in metres and heading ``yaw`` in radians.

    A heading of 0 points away from the camera, pi towards it.
    """

    x: float
    z: float
    yaw: float

    def world(self, local: np.ndarray) -> np.ndarray:
        """Transform local points (..., 3) (ahead, up, right) to world (X, Y, Z), in metres."""
        ahead, up, right = local[..., 0], local[..., 1], local[..., 2]
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return np.stack(
            [self.x + ahead * sin + right * cos, up, self.z + ahead * cos - right * sin], -1
        )


@dataclass(frozen=True)
class _Solid:
    """A convex profile (ahead, up), in metres, extruded from right=-half to right=half."""

    profile: tuple[tuple[float, float], ...]
    half: float

    def faces(self) -> list[np.ndarray]:
        """Return the corners of every face: the strips along the profile, then both sides."""
        profile = np.asarray(self.profile)
        left = np.column_stack([profile, np.full(len(profile), -self.half)])
        right = np.column_stack([profile, np.full(len(profile), self.half)])
        after = np.roll(np.arange(len(profile)), -1)
        strips = [np.stack([left[i], left[j], right[j], right[i]]) for i, j in enumerate(after)]
        return [*strips, left, right]


def _visible(solid: _Solid, place: Place, camera: Camera) -> list[tuple[int, np.ndarray, float]]:
    """Return the visible faces, as (index, pixels (N, 2), brightness), farthest first."""
    faces = [place.world(face) for face in solid.faces()]
    middle = np.mean([face.mean(0) for face in faces], 0)
    eye = np.array([camera.x, camera.y, 0.0])
    seen = []
    for index, face in enumerate(faces):
        center = face.mean(0)
        normal = np.cross(face[1] - face[0], face[2] - face[1])
        normal = normal / (np.linalg.norm(normal) + 1e-9)
        if normal @ (center - middle) < 0:
            normal = -normal
        if normal @ (eye - center) > 0:
            light = 0.82 + 0.25 * max(normal[1], 0.0) + 0.12 * normal[0]
            seen.append((np.linalg.norm(eye - center), index, face, light))
    seen.sort(key=lambda entry: -entry[0])
    return [(index, camera.project(face), light) for _, index, face, light in seen]


def _wheel(place: Place, camera: Camera, ahead: float, right: float, radius: float) -> np.ndarray:
    """Return the outline of a wheel 0.22 m wide: the hull of its two rims."""
    arc = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    rim = np.stack([ahead + radius * np.cos(arc), radius + radius * np.sin(arc)], -1)
    rims = [np.column_stack([rim, np.full(12, right + side)]) for side in (-0.11, 0.11)]
    return hull(camera.project(place.world(np.concatenate(rims))))


def _panel(
    place: Place, camera: Camera, ahead: float, up: tuple[float, float], right: tuple[float, float]
) -> np.ndarray:
    """Return an upright rectangle across the vehicle at ``ahead``, in pixels."""
    corners = [(right[0], up[0]), (right[1], up[0]), (right[1], up[1]), (right[0], up[1])]
    return camera.project(place.world(np.array([(ahead, u, r) for r, u in corners])))


def _faces(solid, place, camera, colors) -> list[Part]:
    """Return the parts of a solid; ``colors`` maps face indices to RGB, and None is the default."""
    return [
        Part([pixels], tuple(light * c for c in colors.get(index, colors[None])))
        for index, pixels, light in _visible(solid, place, camera)
    ]


def _side_of_camera(place: Place, camera: Camera) -> int:
    """Return 1 if the camera is on the right-hand side of the vehicle, else -1."""
    right = np.array([np.cos(place.yaw), -np.sin(place.yaw)])
    return 1 if right @ np.array([camera.x - place.x, -place.z]) > 0 else -1


def _back_visible(place: Place, camera: Camera) -> bool:
    return np.cos(place.yaw) * place.z + np.sin(place.yaw) * (place.x - camera.x) > 0


def _wheels(place, camera, axles, half, radius) -> tuple[list[Part], list[Part]]:
    """Return the wheels below the body, and the near-side wheels that are drawn over it."""
    side = _side_of_camera(place, camera)
    under = [
        Part([_wheel(place, camera, a, s * (half - 0.12), radius)], _TYRE)
        for a in axles
        for s in (-side, side)
    ]
    arc = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    over = []
    for ahead in axles:
        for size, color in ((radius, _TYRE), (0.55 * radius, (150, 150, 152))):
            disc = np.column_stack(
                [ahead + size * np.cos(arc), radius + size * np.sin(arc),
                 np.full(14, side * (half + 0.01))]
            )  # fmt: skip
            over.append(Part([camera.project(place.world(disc))], color))
    return under, over


def _lights(place, camera, ends, half, up) -> list[Part]:
    """Return the tail lights or the headlights, whichever are visible, and the number plate."""
    back = _back_visible(place, camera)
    ahead = ends[0] if back else ends[1]
    color = (190, 24, 24) if back else (250, 244, 214)
    spans = [(-half + 0.05, -half + 0.4), (half - 0.4, half - 0.05)]
    lights = [Part([_panel(place, camera, ahead, up, span)], color) for span in spans]
    plate = _panel(place, camera, ahead, (up[0] - 0.16, up[0] - 0.02), (-0.26, 0.26))
    return [*lights, Part([plate], (232, 232, 224))]


def _paint(rng: np.random.Generator) -> tuple:
    color = np.asarray(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.8, 1.1)
    return tuple(np.clip(color + rng.uniform(-8, 8, 3), 0, 255))


def car_parts(rng: np.random.Generator, camera: Camera, place: Place) -> list[Part]:
    """Return the parts of a car with its middle at ``place``."""
    color = _paint(rng)
    tall, half = rng.uniform(1.38, 1.65), rng.uniform(0.82, 0.92)
    tail = rng.choice((-1.95, -1.45))  # hatchback or saloon
    body = _Solid(
        ((-2.1, 0.22), (2.05, 0.22), (2.1, 0.6), (1.1, 0.86), (-2.0, 0.92), (-2.12, 0.7)), half
    )
    cabin = _Solid(((tail, 0.88), (1.15, 0.86), (0.45, tall), (tail + 0.35, tall)), half - 0.1)
    under, over = _wheels(place, camera, (-1.35, 1.35), half, 0.33)
    glass = {0: color, 1: _GLASS, 2: color, 3: _GLASS, 4: _GLASS, 5: _GLASS, None: color}
    return [
        *under,
        *_faces(body, place, camera, {0: (30, 30, 32), None: color}),
        *_faces(cabin, place, camera, glass),
        *_lights(place, camera, (-2.1, 2.09), half, (0.58, 0.76)),
        *over,
    ]


def truck_parts(rng: np.random.Generator, camera: Camera, place: Place) -> list[Part]:
    """Return the parts of a box truck with its middle at ``place``."""
    cab_color, box_color = _paint(rng), _paint(rng)
    half, tall = rng.uniform(1.1, 1.25), rng.uniform(2.7, 3.3)
    box = _Solid(((-3.7, 0.75), (1.7, 0.75), (1.7, tall), (-3.7, tall)), half)
    cab = _Solid(((1.9, 0.45), (3.7, 0.45), (3.7, 1.3), (3.45, 2.3), (1.9, 2.3)), half - 0.05)
    frame = _Solid(((-3.6, 0.5), (1.9, 0.5), (1.9, 0.76), (-3.6, 0.76)), half - 0.3)
    under, over = _wheels(place, camera, (-2.6, 2.7), half, 0.46)
    cab_parts = _faces(cab, place, camera, {2: _GLASS, None: cab_color})
    door = _side_window(place, camera, half)
    box_parts = _faces(box, place, camera, {None: box_color})
    frame_parts = _faces(frame, place, camera, {None: (52, 52, 54)})
    back = _back_visible(place, camera)
    solids = [cab_parts + door, frame_parts + box_parts]
    if not back:
        solids.reverse()
    seam = Part([_panel(place, camera, -3.71, (0.8, tall - 0.05), (-0.02, 0.02))], (60, 60, 62))
    lights = _lights(place, camera, (-3.71, 3.71), half, (0.78, 0.98))
    return [*under, *solids[0], *solids[1], *([seam] if back else []), *lights, *over]


def _side_window(place: Place, camera: Camera, half: float) -> list[Part]:
    right = _side_of_camera(place, camera) * (half - 0.04)
    corners = np.array([(2.5, 1.4, right), (3.4, 1.4, right), (3.3, 2.1, right), (2.5, 2.1, right)])
    return [Part([camera.project(place.world(corners))], _GLASS)]
