"""Drawables of what stands in the street, or close to the lens."""

import numpy as np

from . import people, props, vehicles
from .camera import Camera
from .drawing import Drawable, Part, ellipse
from .street import Item

__all__ = ["foreground", "standing_objects"]


def _people(rng, camera: Camera, item: Item) -> list[Drawable]:
    place = item.place
    count = 1 if item.kind == "person" else int(rng.integers(4, 8))
    parts = []
    for index in range(count):
        x = place.x + 0.38 * (index - (count - 1) / 2)
        foot, scale = camera.foot(x, place.z), camera.scale(place.z)
        parts += people.human_parts(people.sample_human(rng), foot, scale)
    return [Drawable("person", place.z, parts, group=count > 1)]


def _bicycle(rng, camera: Camera, item: Item) -> list[Drawable]:
    place = item.place
    foot, scale = camera.foot(place.x, place.z), camera.scale(place.z)
    facing = 1 if np.sin(place.yaw) > 0 else -1
    breadth = 0.4 + 0.6 * abs(np.sin(place.yaw))
    parts = people.bicycle_parts(rng, foot, scale, facing, breadth)
    drawables = [Drawable("bicycle", place.z, parts)]
    if item.kind == "rider":
        rider = people.sample_human(rng)
        seat = foot - (facing * 0.12 * breadth * scale, people.RIDER_LIFT * scale)
        drawables.append(Drawable("rider", place.z, people.human_parts(rider, seat, scale)))
    return drawables


def _cars(rng, camera: Camera, item: Item) -> list[Drawable]:
    if item.kind == "car":
        return [Drawable("car", item.place.z, vehicles.car_parts(rng, camera, item.place))]
    if item.kind == "truck":
        return [Drawable("truck", item.place.z, vehicles.truck_parts(rng, camera, item.place))]
    places = [
        vehicles.Place(item.place.x, item.place.z + ahead, item.place.yaw)
        for ahead in (5.4, 0.0, -5.4)
    ]
    parts = [part for place in places for part in vehicles.car_parts(rng, camera, place)]
    return [Drawable("car", item.place.z, parts, group=True)]


_BUILDERS = {
    "person": _people,
    "persongroup": _people,
    "bicycle": _bicycle,
    "rider": _bicycle,
    "car": _cars,
    "truck": _cars,
    "cargroup": _cars,
    "lamp": lambda rng, camera, item: [props.lamp(rng, camera, item.place)],
    "sign": lambda rng, camera, item: props.sign(rng, camera, item.place),
    "tree": lambda rng, camera, item: [props.tree(rng, camera, item.place)],
    "static": lambda rng, camera, item: [props.street_furniture(rng, camera, item.place)],
    "dynamic": lambda rng, camera, item: [props.stroller(rng, camera, item.place)],
}


def standing_objects(rng: np.random.Generator, camera: Camera, items: list[Item]) -> list[Drawable]:
    """Return the drawables of all items, in order; a rider comes right after its bicycle."""
    return [drawable for item in items for drawable in _BUILDERS[item.kind](rng, camera, item)]


def foreground(rng: np.random.Generator, height: int, width: int) -> list[Drawable]:
    """Return, in some scenes, the camera car's bonnet and the border that rectification leaves."""
    drawables = []
    if rng.random() < 0.3:
        rise = rng.uniform(0.04, 0.1) * height
        bonnet = ellipse((width * rng.uniform(0.45, 0.55), height), 0.42 * width, rise, 40)
        shine = ellipse((width * 0.45, height), 0.2 * width, 0.55 * rise, 40)
        color = rng.uniform(20, 70) * np.ones(3)
        parts = [Part([bonnet], tuple(color)), Part([shine], tuple(color * 1.35), detail=True)]
        drawables.append(Drawable("ego vehicle", 0.0, parts))
    if rng.random() < 0.25:
        rim = max(2.0, rng.uniform(0.008, 0.016) * width)
        column = width - rim if rng.random() < 0.5 else -1.0
        corners = np.array([(column, -1), (column + rim, -1), (column + rim, height),
                            (column, height)])  # fmt: skip
        drawables.append(Drawable("out of roi", 0.0, [Part([corners], (12, 12, 12))]))
    return drawables
