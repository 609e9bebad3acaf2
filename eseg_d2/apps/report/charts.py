"""Line charts of a training by matplotlib, as SVG in the colours of the page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

__all__ = ["Chart", "Series", "smooth"]

SIZE = 400, 240
"""Width and height of a chart in points of its SVG, about a phone's pixels."""

MAX_SAMPLES = 240  # points of a curve whose values can be read off
SMOOTHED_FROM = 40  # points
NEARLY_FLAT = 0.8  # lowest by highest value from which on an axis from zero would show little
FEW = 30  # points of a curve that are marked

# Placeholders in matplotlib's SVG for the page's colours, which depend on light and dark
_TEXT = "#010101"
_COLORS = [f"#0202{i:02x}" for i in range(8)]
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "",  # so that equal charts are equal text
    "font.size": 11,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    "axes.edgecolor": _TEXT,
    "grid.color": _TEXT,
    "grid.alpha": 0.2,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Type", "Format"))


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: in the legend.
        points: (x, y), x ascending.
        color: the number of one of the page's colours, from 0.
        dashed: whether it is drawn dashed.
        noisy: whether it is drawn smoothed over the faint points themselves if it has many.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    dashed: bool = False
    noisy: bool = False


class Chart:
    """Curves over iterations.

    Attributes:
        title: what is drawn, with its unit.
        series: those that have points.
        svg: the drawing; its text is numbers alone, so the page takes it as it is.
        base: where the vertical axis starts, as text; "" for zero.
        samples: for each series its name, and at most :data:`MAX_SAMPLES` of its points with their
            place across the SVG: [place, x, y].
    """

    svg: str
    base: str
    samples: list

    def __init__(self, title: str, series: Sequence[Series]):
        self.title = title
        self.series = [s for s in series if s.points]

    def draw(self) -> "Chart":
        """Draw a chart that has points, and return it."""
        with matplotlib.rc_context(_STYLE):
            figure = Figure(figsize=(SIZE[0] / 72, SIZE[1] / 72), dpi=72, layout="constrained")
            axes = figure.add_subplot()
            axes.spines[["top", "left", "right"]].set_visible(False)
            axes.grid(axis="y", clip_on=False)
            axes.tick_params(length=0)
            axes.set_xlabel("iteration", loc="right")
            for axis in axes.xaxis, axes.yaxis:
                axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            for s in self.series:
                _plot(axes, s)
            low, high = _extent([y for s in self.series for _, y in s.points])
            axes.set_xlim(0, max(x for s in self.series for x, _ in s.points) or 1)
            axes.set_ylim(low, high)
            self.base = f"{low:.3g}" if low else ""
            content = io.StringIO()
            figure.savefig(content, format="svg", transparent=True, metadata=_NO_METADATA)
            self.samples = [[s.name, _samples(axes, s)] for s in self.series]
        svg = content.getvalue()
        svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
        for i, color in enumerate(_COLORS):
            svg = svg.replace(color, f"var(--c{i})")
        self.svg = svg
        return self


def smooth(values: Sequence[float]) -> np.ndarray:
    """Return the mean of the values around each one, a twentieth of all; fewer at the ends."""
    reach = max(len(values) // 40, 2)
    total = np.cumsum([0.0, *values])
    places = np.arange(len(values))
    # as many on both sides, so that slopes stay
    half = np.minimum(reach, np.minimum(places, len(values) - 1 - places))
    return (total[places + half + 1] - total[places - half]) / (2 * half + 1)


def _plot(axes, series: Series) -> None:
    x, y = zip(*series.points, strict=True)
    style = {"color": _COLORS[series.color], "clip_on": False}
    if series.noisy and len(x) >= SMOOTHED_FROM:
        axes.plot(x, y, linewidth=1, alpha=0.3, **style)
        y = smooth(y)
    marker = "o" if len(x) <= FEW else ""
    line = "--" if series.dashed else "-"
    axes.plot(x, y, linewidth=1.8, linestyle=line, marker=marker, markersize=5, **style)


def _extent(values: Sequence[float]) -> tuple[float, float]:
    """Return where the vertical axis starts and ends: at zero unless that would show little."""
    low, high = min(values), max(values)
    if low >= 0 and (low < NEARLY_FLAT * high or high == 0):
        return 0.0, 1.05 * high or 1.0
    margin = 0.05 * (high - low) or abs(low) / 2
    return low - margin, high + margin


def _samples(axes, series: Series) -> list[list[float]]:
    chosen = series.points[:: -(-len(series.points) // MAX_SAMPLES)]
    places = axes.transData.transform(chosen)[:, 0]
    return [
        [round(float(place), 1), x, float(f"{y:.5g}")]
        for place, (x, y) in zip(places, chosen, strict=True)
    ]
