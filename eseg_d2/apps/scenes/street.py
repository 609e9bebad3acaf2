"""What a scene contains and where, in metres, before anything is drawn."""

from dataclasses import dataclass, field

import numpy as np

from .camera import Camera
from .vehicles import CAR_LENGTH, TRUCK_LENGTH, Place

__all__ = ["Item", "Side", "Street", "sample_items", "sample_street"]

_PAVINGS = ("asphalt", "concrete", "pavers", "cobbles")

_EMPTY_SHARE = 0.06
"""Share of the scenes without any thing."""


@dataclass(frozen=True)
class Side:
    """One side of the street. Distances in metres from the middle of the carriageway.

    Attributes:
        sign: -1 left, 1 right.
        curb: where the carriageway ends.
        verge: width of the grass between curb and sidewalk, may be 0.
        sidewalk: width of the sidewalk.
        lawn: width of the grass behind the sidewalk, may be 0.
        park: whether hedges and trees stand behind it instead of houses.
    """

    sign: int
    curb: float
    verge: float
    sidewalk: float
    lawn: float
    park: bool

    @property
    def inner(self) -> float:
        """Street-side edge of the sidewalk."""
        return self.curb + self.verge

    @property
    def outer(self) -> float:
        """Far edge of the sidewalk."""
        return self.inner + self.sidewalk

    @property
    def line(self) -> float:
        """Where houses or hedges begin."""
        return self.outer + self.lawn


@dataclass(frozen=True)
class Street:
    """The static part of the town.

    Attributes:
        sides: left and right.
        length: distance in metres at which the view ends.
        crossing: (from, to) distances of a crossing street, or None.
        zebra: distance of a zebra crossing, or None.
        lane_marks: whether the carriageway has lane markings.
        materials: texture name by label name (road, sidewalk, terrain).
        tints: brightness by label name.
    """

    sides: tuple[Side, Side]
    length: float
    crossing: tuple[float, float] | None
    zebra: float | None
    lane_marks: bool
    materials: dict[str, str]
    tints: dict[str, float]


@dataclass(frozen=True)
class Item:
    """Something that stands in the street: its kind (a label name or a prop) and its place."""

    kind: str
    place: Place


@dataclass
class _Plan:
    """The items so far and the ground they occupy, so that no two overlap."""

    rng: np.random.Generator
    camera: Camera
    items: list[Item] = field(default_factory=list)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def distance(self, near: float, far: float) -> float:
        """Draw a distance in metres; near ones are more likely."""
        return near + (far - near) * self.rng.random() ** 2

    def try_add(self, kind: str, place: Place, half_x: float, half_z: float) -> bool:
        """Add an item if it is in view and its ground is free."""
        if place.z - half_z < 1.2 * self.camera.near:
            return False
        column = self.camera.foot(place.x, place.z)[0] / self.camera.width
        box = place.x - half_x, place.x + half_x, place.z - half_z, place.z + half_z
        free = all(
            box[1] < x0 or box[0] > x1 or box[3] < z0 or box[2] > z1
            for x0, x1, z0, z1 in self.taken
        )
        if not free or not 0.02 < column < 0.98:
            return False
        self.taken.append(box)
        self.items.append(Item(kind, place))
        return True


def _sample_side(rng: np.random.Generator, sign: int, green: bool) -> Side:
    park = rng.random() < 0.35
    return Side(
        sign=sign,
        curb=rng.uniform(3.0, 6.0),
        verge=rng.uniform(0.8, 2.2) if rng.random() < 0.35 else 0.0,
        sidewalk=rng.uniform(1.8, 4.5),
        lawn=rng.uniform(1.5, 6.0) if green or park or rng.random() < 0.4 else 0.0,
        park=park,
    )


def sample_street(rng: np.random.Generator) -> Street:
    """Draw a street. Road and sidewalk share a list of pavings, and often have the same one."""
    green = int(rng.integers(2))
    left, right = (_sample_side(rng, sign, green == i) for i, sign in enumerate((-1, 1)))
    road = str(rng.choice(_PAVINGS, p=(0.55, 0.2, 0.1, 0.15)))
    same = rng.random() < 0.4
    sidewalk = road if same else str(rng.choice(_PAVINGS, p=(0.3, 0.25, 0.3, 0.15)))
    tint = rng.uniform(0.8, 1.2)
    start = rng.uniform(14, 30)
    return Street(
        sides=(left, right),
        length=rng.uniform(55, 110),
        crossing=(start, start + rng.uniform(6, 9)) if rng.random() < 0.3 else None,
        zebra=rng.uniform(6, 14) if rng.random() < 0.25 else None,
        lane_marks=rng.random() < 0.7,
        materials={"road": road, "sidewalk": sidewalk, "terrain": "grass"},
        tints={
            "road": tint,
            "sidewalk": tint if same else rng.uniform(0.8, 1.2),
            "terrain": rng.uniform(0.85, 1.15),
        },
    )


def _add_vehicle(plan: _Plan, street: Street, kind: str, length: float) -> None:
    rng = plan.rng
    side = street.sides[rng.integers(2)]
    heading = 0.0 if side.sign > 0 else np.pi
    z = plan.distance(6.0 + length / 2, 38.0)
    half_width = 1.0 if kind == "car" else 1.3
    if rng.random() < 0.14:  # drives across
        z = street.crossing[0] + 3.5 if street.crossing else z
        place = Place(rng.uniform(-6, 6), z, rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.15))
        plan.try_add(kind, place, length / 2, half_width)
        return
    parked = rng.random() < 0.45
    lateral = side.curb - half_width - 0.15 if parked else side.curb * rng.uniform(0.4, 0.6)
    place = Place(side.sign * lateral, z, heading + rng.normal(0, 0.05))
    plan.try_add(kind, place, half_width, length / 2 + 0.4)


def _sidewalk_place(plan: _Plan, street: Street, near: float, far: float) -> Place:
    side = street.sides[plan.rng.integers(2)]
    lateral = plan.rng.uniform(side.inner + 0.3, side.outer - 0.3)
    return Place(side.sign * lateral, plan.distance(near, far), 0.0)


def _add_people(plan: _Plan, street: Street) -> None:
    rng = plan.rng
    for _ in range(rng.integers(1, 6)):
        place = _sidewalk_place(plan, street, 4.5, 20)
        if rng.random() < 0.15:  # crosses the road
            place = Place(rng.uniform(-3, 3), place.z, 0.0)
        plan.try_add("person", place, 0.3, 0.3)


def _add_riders(plan: _Plan, street: Street) -> None:
    rng = plan.rng
    for _ in range(rng.integers(1, 4)):
        side = street.sides[rng.integers(2)]
        on_road = rng.random() < 0.75
        lateral = side.curb - rng.uniform(0.6, 1.6) if on_road else side.inner + 0.8
        place = Place(side.sign * lateral, plan.distance(4.5, 17.0), rng.uniform(0, 2 * np.pi))
        plan.try_add("rider", place, 0.9, 0.4)


def _add_parked_bicycles(plan: _Plan, street: Street) -> None:
    for _ in range(plan.rng.integers(1, 3)):
        place = _sidewalk_place(plan, street, 4.5, 14.0)
        place = Place(place.x, place.z, plan.rng.uniform(0, 2 * np.pi))
        if plan.try_add("bicycle", place, 0.8, 0.3) and plan.rng.random() < 0.4:
            owner = Place(place.x + plan.rng.choice((-1, 1)) * 1.15, place.z, 0.0)
            plan.try_add("person", owner, 0.2, 0.2)


def _add_things(plan: _Plan, street: Street) -> None:
    rng = plan.rng
    if rng.random() < 0.15:  # a row of parked cars that cannot be told apart
        side = street.sides[rng.integers(2)]
        place = Place(side.sign * (side.curb - 1.2), rng.uniform(20, 32), 0.0)
        plan.try_add("cargroup", place, 1.0, 8.0)
    if rng.random() < 0.55:
        _add_vehicle(plan, street, "truck", TRUCK_LENGTH)
        _add_vehicle(plan, street, "truck", TRUCK_LENGTH)
    if rng.random() < 0.88:
        for _ in range(rng.integers(2, 7)):
            _add_vehicle(plan, street, "car", CAR_LENGTH)
    if rng.random() < 0.8:
        _add_riders(plan, street)
    if rng.random() < 0.35:
        _add_parked_bicycles(plan, street)
    if rng.random() < 0.9:
        _add_people(plan, street)
    if rng.random() < 0.12:
        plan.try_add("persongroup", _sidewalk_place(plan, street, 11, 20), 1.2, 0.6)
    if rng.random() < 0.25:
        plan.try_add("dynamic", _sidewalk_place(plan, street, 5, 16), 0.4, 0.4)


def _add_props(plan: _Plan, street: Street) -> None:
    rng = plan.rng
    for side in street.sides:
        at_curb = side.sign * (side.curb + 0.35)
        for z in np.arange(rng.uniform(5, 12), 27, rng.uniform(9, 15)):
            plan.try_add("lamp", Place(at_curb, z, 0.0), 0.15, 0.15)
        for _ in range(rng.integers(1, 4)):
            plan.try_add("sign", Place(at_curb, plan.distance(4.5, 18), 0.0), 0.3, 0.15)
        green = side.inner - 0.5 if side.verge > 1 else side.outer + 0.7
        if side.lawn > 1 or side.verge > 1:
            for z in np.arange(rng.uniform(5, 14), 48, rng.uniform(6, 13)):
                if rng.random() < 0.7:
                    plan.try_add("tree", Place(side.sign * green, z, 0.0), 0.3, 0.3)
        if rng.random() < 0.35:
            place = Place(side.sign * (side.outer - 0.4), plan.distance(5, 18), 0.0)
            plan.try_add("static", place, 0.5, 0.4)


def sample_items(rng: np.random.Generator, camera: Camera, street: Street) -> list[Item]:
    """Draw everything that stands in the street, farthest first. Some scenes have no things."""
    plan = _Plan(rng, camera)
    if rng.random() >= _EMPTY_SHARE:
        _add_things(plan, street)
    _add_props(plan, street)
    return sorted(plan.items, key=lambda item: -item.place.z)
