"""People and bicycles, drawn flat at their distance.

A *person* on foot and a *rider* are the very same drawing with the same poses and clothes: only
the bicycle underneath tells them apart.
"""

from dataclasses import dataclass

import numpy as np

from .drawing import Part, capsule, ellipse, ring

__all__ = ["RIDER_LIFT", "Human", "bicycle_parts", "human_parts", "sample_human"]

RIDER_LIFT = 0.16
"""Height of a rider's feet above the ground in metres."""

_SKINS = ((236, 196, 168), (205, 155, 120), (148, 100, 72), (96, 64, 48))
_HAIRS = ((50, 36, 28), (28, 26, 26), (120, 84, 48), (176, 150, 104), (150, 150, 150))
_CLOTHES = (
    (178, 44, 44), (36, 70, 140), (48, 110, 66), (214, 176, 52), (62, 62, 70), (200, 200, 196),
    (120, 70, 130), (222, 122, 50), (70, 140, 160), (96, 72, 52), (30, 34, 48), (190, 120, 140),
)  # fmt: skip


@dataclass(frozen=True)
class Human:
    """Appearance and pose of a human, without a position.

    Attributes:
        size: body height in metres.
        facing: -1 or 1, the side it faces.
        lean: forward lean of the trunk, radians.
        stride: angle between the thighs and the vertical, radians.
        knee: bend of the knees, radians.
        arm: forward swing of the arms, radians.
        bulk: relative thickness of the limbs; 1 is average.
        bag: whether it carries something on its back.
        skin, hair, shirt, trousers: RGB.
    """

    size: float
    facing: int
    lean: float
    stride: float
    knee: float
    arm: float
    bulk: float
    bag: bool
    skin: tuple
    hair: tuple
    shirt: tuple
    trousers: tuple


def _pick(rng: np.random.Generator, colors) -> tuple:
    color = np.asarray(colors[rng.integers(len(colors))]) * rng.uniform(0.8, 1.15)
    return tuple(np.clip(color + rng.uniform(-10, 10, 3), 0, 255))


def sample_human(rng: np.random.Generator) -> Human:
    """Draw one human; the same distribution serves persons and riders."""
    child = rng.random() < 0.12
    return Human(
        size=rng.uniform(1.2, 1.45) if child else rng.uniform(1.6, 1.9),
        facing=int(rng.choice((-1, 1))),
        lean=rng.uniform(0.0, 0.25),
        stride=rng.uniform(0.05, 0.55),
        knee=rng.uniform(0.0, 0.7),
        arm=rng.uniform(-0.3, 1.0),
        bulk=rng.uniform(0.9, 1.25),
        bag=rng.random() < 0.25,
        skin=_pick(rng, _SKINS),
        hair=_pick(rng, _HAIRS),
        shirt=_pick(rng, _CLOTHES),
        trousers=_pick(rng, _CLOTHES),
    )


def _turned(origin: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Return the end of a limb that hangs from ``origin``, turned forward by ``angle``."""
    return origin + length * np.array([np.sin(angle), -np.cos(angle)])


def _limbs(human: Human) -> list[tuple[np.ndarray, tuple]]:
    """Return the limbs from the far side to the near side, in body heights, x forward and y up."""
    thick = 0.052 * human.bulk
    hip = np.array([0.0, 0.5])
    shoulder = hip + 0.31 * np.array([np.sin(human.lean), np.cos(human.lean)])
    head = shoulder + 0.115 * np.array([np.sin(1.2 * human.lean), np.cos(human.lean)])
    limbs = []

    def leg(angle: float, shade: float) -> None:
        knee = _turned(hip, 0.25, angle)
        foot = _turned(knee, 0.22, angle - human.knee * (0.4 + 0.6 * (angle < 0)))
        trousers = tuple(shade * c for c in human.trousers)
        limbs.append((capsule(hip, knee, thick, 0.85 * thick), trousers))
        limbs.append((capsule(knee, foot, 0.85 * thick, 0.6 * thick), trousers))
        shoe = foot + np.array([0.045, -0.012])
        limbs.append((capsule(foot - (0.01, 0.012), shoe, 0.026, 0.022), (40, 36, 36)))

    def arm(angle: float, shade: float) -> None:
        elbow = _turned(shoulder, 0.17, angle)
        hand = _turned(elbow, 0.15, angle + 0.5)
        sleeve = tuple(shade * c for c in human.shirt)
        limbs.append((capsule(shoulder, elbow, 0.7 * thick, 0.6 * thick), sleeve))
        limbs.append((capsule(elbow, hand, 0.6 * thick, 0.5 * thick), human.skin))

    arm(human.lean - 0.6 * human.arm, 0.7)
    leg(-human.stride, 0.75)
    leg(human.stride, 1.0)
    if human.bag:
        back = (hip + 2 * shoulder) / 3 - np.array([0.085, 0.0])
        limbs.append((ellipse(back, 0.05, 0.1, 10), human.trousers))
    limbs.append((capsule(hip, shoulder, 1.35 * thick, 1.6 * thick), human.shirt))
    limbs.append((capsule(shoulder, head, 0.03, 0.03), human.skin))
    limbs.append((ellipse(head, 0.068, 0.08), human.hair))
    limbs.append((ellipse(head + (0.022, -0.014), 0.05, 0.06, 10), human.skin))
    arm(human.lean + human.arm, 0.88)
    return limbs


def human_parts(human: Human, foot: np.ndarray, scale: float) -> list[Part]:
    """Return the parts of a human.

    Args:
        human: the human to draw.
        foot: pixel (column, row) between the feet.
        scale: pixels per metre.
    """
    factor = scale * human.size * np.array([human.facing, -1.0])
    return [Part([foot + factor * limb], color) for limb, color in _limbs(human)]


def bicycle_parts(
    rng: np.random.Generator, foot: np.ndarray, scale: float, facing: int, breadth: float
) -> list[Part]:
    """Return the parts of a bicycle.

    Args:
        rng: draws the colour.
        foot: pixel (column, row) on the ground under its middle.
        scale: pixels per metre.
        facing: -1 or 1, the side that the front wheel is on.
        breadth: visible share of its length; 1 is seen from the side.
    """
    color = _pick(rng, _CLOTHES)
    factor = scale * np.array([facing * breadth, -1.0])

    def at(x: float, y: float) -> np.ndarray:
        return foot + factor * (x, y)

    def tube(a, b, radius: float = 0.035) -> np.ndarray:
        return capsule(at(*a), at(*b), radius * scale, radius * scale, 3)

    crank, seat, head = (-0.08, 0.32), (-0.2, 0.86), (0.36, 0.84)
    rear, front = (-0.5, 0.34), (0.52, 0.34)
    radius = 0.35 * scale
    wheels = [
        Part(ring(at(*hub), breadth * radius, radius, 0.075 * scale), (32, 32, 34))
        for hub in (rear, front)
    ]
    frame = [(rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front)]
    bar = head[0], head[1] + 0.14
    return [
        *wheels,
        *(Part([tube(a, b)], color) for a, b in frame),
        Part([tube(head, bar)], color),
        Part([capsule(at(*bar) - (0.16 * scale, 0), at(*bar) + (0.16 * scale, 0),
                      0.035 * scale, 0.035 * scale, 3)], (40, 40, 44)),
        Part([tube((seat[0] - 0.1, 0.92), (seat[0] + 0.1, 0.92), 0.05)], (40, 36, 34)),
    ]  # fmt: skip
