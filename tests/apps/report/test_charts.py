from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.apps.report.charts import Series, make_chart, short_number, smooth, thin

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


def test_noisy_curves_are_smoothed_and_the_points_stay_behind():
    points = [(x, x + (-1) ** x * 5.0) for x in range(100)]
    (line,) = make_chart("loss", [Series("a", points, noisy=True)]).lines
    (raw,) = make_chart("loss", [Series("a", points)]).lines
    assert line.behind == raw.path != line.path and raw.behind == ""
    assert line.samples == raw.samples
    smoothed = [y for _, y in smooth(points)]
    assert all(abs(y - x) < 2 for x, y in enumerate(smoothed[1:-1], 1))
    assert (smoothed[0], smoothed[-1]) == (points[0][1], points[-1][1])
    (few,) = make_chart("loss", [Series("a", points[:20], noisy=True)]).lines
    assert few.behind == ""


@given(st.lists(VALUES, min_size=1, max_size=300))
def test_a_smoothed_curve_stays_within_its_points(values):
    smoothed = smooth(list(enumerate(values)))
    assert [x for x, _ in smoothed] == [*range(len(values))]
    tolerance = 1e-6 * (1 + max(map(abs, values)))
    for _, y in smoothed:
        assert min(values) - tolerance <= y <= max(values) + tolerance


def test_axes_begin_at_zero_or_say_where():
    def base(*values):
        chart = make_chart("x", [Series("a", [(i + 20, v) for i, v in enumerate(values)])])
        assert chart.x_ticks[0] == (chart.left, "0")
        return chart.base, chart.y_ticks[0][1]

    assert base(4.0, 7.0) == base(0.0, 0.0) == base(0.0, 1.0) == ("", "0")
    assert base(0.67, 0.69)[0] == base(0.67, 0.69)[1] == "0.67"
    assert base(-2.0, 3.0) == ("-2", "-2")
    assert base(5.0, 5.0)[0] == base(5.0, 5.0)[1] != ""


def test_no_points_no_chart():
    assert make_chart("loss", [Series("a", [])]) is None


def test_short_numbers():
    shown = {90000: "90k", 1500000: "1.5M", 0.02: "0.02", 0: "0", 12.34: "12.3", -2500: "-2.5k"}
    shown |= {0.00001: "1e-5", 0.00015: "1.5e-4", -0.0005: "-5e-4"}
    assert {n: short_number(n) for n in shown} == shown
