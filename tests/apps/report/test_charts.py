"""Charts: smoothing, where axes start, and the colours and values that the page gets."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.apps.report.charts import MAX_SAMPLES, SIZE, Chart, Series, smooth


def draw(*values, first: int = 0, **options) -> Chart:
    points = [(first + i, v) for i, v in enumerate(values)]
    return Chart("loss", [Series("a", points, **options), Series("empty", [])]).draw()


def lines(chart: Chart) -> list[str]:
    """Return the paths of the curves, the only ones in the page's colours."""
    root = ElementTree.fromstring(chart.svg)
    paths = root.iter("{http://www.w3.org/2000/svg}path")
    return [p.get("d") for p in paths if "stroke: var(--c" in p.get("style", "")]


@pytest.mark.parametrize("number", [0, 7])
def test_curves_and_text_take_their_colours_from_the_page(number):
    svg = draw(*range(100), color=number).svg
    assert set(re.findall(r"var\(--c\d\)", svg)) == {f"var(--c{number})"}
    assert "currentColor" in svg and not re.search(r"#0[12]0[12]", svg)
    assert "url(" not in svg  # the page loads nothing


def test_higher_values_are_drawn_higher_and_later_ones_further_right():
    (path,) = lines(draw(*(float(x) for x in range(50))))
    x0, y0, *_, x1, y1 = map(float, re.findall(r"[\d.]+", path))
    assert x0 < x1 and y1 < y0  # an SVG's y axis points down


def test_samples_lie_inside_the_drawing():
    chart = draw(*(float(x % 7) for x in range(1000)))
    ((name, samples),) = chart.samples
    assert name == "a" and 100 < len(samples) <= MAX_SAMPLES
    xs = [x for x, _, _ in samples]
    assert xs == sorted(xs) and 0 <= xs[0] < xs[-1] <= SIZE[0]
    assert all(y == x % 7 for _, x, y in samples)


def test_noisy_curve_is_smoothed_and_drawn_over_its_points():
    values = [x + (-1) ** x * 5.0 for x in range(100)]
    behind, front = lines(draw(*values, noisy=True))
    (raw,) = lines(draw(*values))
    assert behind == raw != front
    smoothed = smooth(values)
    assert all(abs(y - x) < 2 for x, y in enumerate(smoothed[1:-1], 1))
    assert (smoothed[0], smoothed[-1]) == pytest.approx((values[0], values[-1]))
    assert len(lines(draw(*values[:35], noisy=True))) == 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_smoothed_curve_stays_within_the_range_of_its_points(values):
    smoothed = smooth(values)
    tolerance = 1e-6 * (1 + max(map(abs, values)))
    assert len(smoothed) == len(values)
    assert min(values) - tolerance <= smoothed.min()
    assert smoothed.max() <= max(values) + tolerance


def test_axis_starts_at_zero_or_says_where():
    assert draw(4.0, 7.0).base == draw(0.0, 0.0).base == draw(0.0, 1.0).base == ""
    assert 0.6 < float(draw(0.67, 0.69).base) < 0.67
    assert float(draw(-2.0, 3.0).base) < -2
    assert 0 < float(draw(5.0, 5.0).base) < 5
    assert draw(3.0).svg  # a single point
