from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.report.charts import Series, make_chart, short_number, thin

VALUES = st.floats(-1e6, 1e6)


@given(st.lists(VALUES, min_size=1, max_size=400), st.integers(2, 60))
def test_thinning_keeps_order_and_peaks(values, limit):
    points = list(enumerate(values))
    kept = thin(points, limit)
    assert len(kept) <= limit + 1
    assert kept == sorted(kept) and set(kept) <= set(points)
    assert max(y for _, y in kept) >= max(values[:-1] or values)
    assert min(y for _, y in kept) <= min(values[:-1] or values)
    assert kept[-1] == points[-1]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), VALUES), min_size=1, max_size=50, unique_by=lambda p: p[0]
    )
)
def test_everything_is_drawn_within_the_axes(points):
    chart = make_chart("loss", [Series("a", sorted(points)), Series("empty", [])])
    (line,) = chart.lines
    assert len(line.samples) == len(points)
    for left, top, *_ in line.samples:
        assert chart.left <= left <= chart.right and chart.top <= top <= chart.bottom
    for place, _ in chart.x_ticks:
        assert chart.left <= place <= chart.right
    for place, _ in chart.y_ticks:
        assert chart.top <= place <= chart.bottom


def test_higher_values_are_drawn_higher_and_later_ones_to_the_right():
    (line,) = make_chart("loss", [Series("a", [(0, 1.0), (10, 3.0), (20, 2.0)])]).lines
    (x0, y0, *_), (x1, y1, *_), (x2, y2, *_) = line.samples
    assert x0 < x1 < x2 and y1 < y2 < y0  # an SVG's y points down


def test_no_points_no_chart():
    assert make_chart("loss", [Series("a", [])]) is None


def test_short_numbers():
    shown = {90000: "90k", 1500000: "1.5M", 0.02: "0.02", 0: "0", 12.34: "12.3", -2500: "-2.5k"}
    shown |= {0.00001: "1e-5", 0.00015: "1.5e-4", -0.0005: "-5e-4"}
    assert {n: short_number(n) for n in shown} == shown
