"""Line charts as shapes for an inline SVG, which a browser shows without a script."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

__all__ = ["Chart", "Line", "Series", "make_chart", "short_number", "smooth", "thin"]

# In the SVG's own units; about a phone's pixels
WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 34
MAX_POINTS = 240
SMOOTHED_FROM = 40  # points
NEARLY_FLAT = 0.8  # lowest by highest value from which on an axis from zero would show little

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """A curve before it is drawn.

    Attributes:
        name: in the legend.
        points: (x, y), x ascending.
        color: which of the page's colours, from 0.
        dashed: drawn so.
        noisy: drawn smoothed if it has many points, with the points themselves faint behind.
    """

    name: str
    points: Points
    color: int = 0
    dashed: bool = False
    noisy: bool = False


@dataclass(frozen=True)
class Line:
    """A drawn curve.

    Attributes:
        name, color, dashed: of its :class:`Series`.
        path: an SVG path.
        behind: that of the curve before it was smoothed; "" if it was not.
        samples: [x, y on the page, x, y], not smoothed.
    """

    name: str
    color: int
    dashed: bool
    path: str
    behind: str
    samples: list[list[float]]


@dataclass(frozen=True)
class Chart:
    """Everything that the page's template needs to draw a chart.

    Attributes:
        title: above it.
        lines: the curves.
        x_ticks, y_ticks: (place on the page, text).
        dots: mark every point, as there are few.
        base: where the vertical axis begins, as text; "" for zero.
    """

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: bool
    base: str

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM


def make_chart(title: str, series: Sequence[Series]) -> Chart | None:
    """
    Args:
        title: what is drawn, with its unit.
        series: those without a point are left out.

    Returns:
        None if there is no point at all.
    """
    series = [s for s in series if s.points]
    if not series:
        return None
    drawn = [thin(s.points) for s in series]
    points = [point for curve in drawn for point in curve]
    x_ticks, x_range = _ticks([0, *(x for x, _ in points)], integer=True)
    values = [y for _, y in points]
    varies = min(values) < NEARLY_FLAT * max(values) or max(values) == 0
    y_ticks, y_range = _ticks([0, *values] if min(values) >= 0 and varies else values)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0])
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        left = LEFT + across * (WIDTH - RIGHT - LEFT)
        return round(left, 1), round(HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP), 1)

    def path(curve: Points) -> str:
        return "M" + "L".join("{} {}".format(*place(x, y)) for x, y in curve)

    lines = []
    for s, curve in zip(series, drawn, strict=True):
        samples = [[*place(x, y), x, float(f"{y:.5g}")] for x, y in curve]
        behind = path(curve) if s.noisy and len(s.points) >= SMOOTHED_FROM else ""
        front = path(thin(smooth(s.points))) if behind else path(curve)
        lines.append(Line(s.name, s.color, s.dashed, front, behind, samples))
    return Chart(
        title,
        lines,
        [(place(x, y_range[0])[0], short_number(x)) for x in x_ticks],
        [(place(x_range[0], y)[1], short_number(y)) for y in y_ticks],
        max(len(curve) for curve in drawn) <= 30,
        short_number(y_range[0]) if y_range[0] else "",
    )


def smooth(points: Points) -> Points:
    """Take the mean of y over the points around each, a twentieth of all; fewer at the ends."""
    reach = max(len(points) // 40, 2)
    total = np.cumsum([0.0, *(y for _, y in points)])
    smoothed = []
    for i, (x, _) in enumerate(points):
        half = min(reach, i, len(points) - 1 - i)  # the same on both sides, so that slopes stay
        mean = (total[i + half + 1] - total[i - half]) / (2 * half + 1)
        smoothed.append((x, float(mean)))
    return smoothed


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most ``limit`` points (and the last one) that keep the peaks: of each stretch the lowest
    and the highest.

    Args:
        points: (x, y).
        limit: at least 2.
    """
    if len(points) <= limit:
        return points
    stretches = limit // 2
    stretch = len(points) / stretches
    kept = []
    for i in range(stretches):
        part = points[round(i * stretch) : round((i + 1) * stretch)]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def short_number(value: float) -> str:
    """As short as can be read: 90k, 1.5M, 0.02, 1.5e-5."""
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    for size, letter in (1e6, "M"), (1e3, "k"):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


def _ticks(values: Sequence[float], integer: bool = False) -> tuple[list[float], tuple]:
    """Round values across a range, and the range that the axis covers."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - abs(low) / 2, high + (abs(high) / 2 or 1)
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=integer).tick_values(low, high)
    if integer:  # iterations end where they end
        return [t for t in ticks.tolist() if low <= t <= high], (low, high)
    return ticks.tolist(), (float(ticks[0]), float(ticks[-1]))
