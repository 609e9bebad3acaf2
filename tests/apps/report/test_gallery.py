"""Choice of the images that a report shows."""

from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.apps.report.gallery import choose, evenly


@given(st.lists(st.none() | st.floats(0, 100)))
def test_each_image_is_chosen_once_and_in_order(scores):
    scores = {f"{i}.png": score for i, score in enumerate(scores)}
    chosen = choose(scores)
    names = [name for group in chosen.values() for name in group]
    ranked = [name for name, score in scores.items() if score is not None]
    each = min(max(len(ranked) // 3, 1), 3)
    assert len(set(names)) == len(names) == min(len(ranked), 3 * each)
    assert set(names) <= set(ranked)
    worst, median, best = ([scores[n] for n in chosen[g]] for g in ("worst", "median", "best"))
    assert worst + median + best[::-1] == sorted(worst + median + best)
    if worst:
        assert worst[0] == min(scores[n] for n in ranked)
    if best:
        assert best[0] == max(scores[n] for n in ranked)


def test_median_images_are_in_the_middle():
    chosen = choose({str(i): float(i) for i in range(101)})
    assert chosen["median"] == ["49", "50", "51"]


def test_images_are_spread_over_the_data_set():
    names = [str(i) for i in range(10)]
    assert evenly(names, 3) == ["0", "3", "6"]
    assert evenly(names, None) == evenly(names, 99) == names
    assert evenly(names, 0) == []
