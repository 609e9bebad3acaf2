"""The doctor and the loader apply the same rules."""

import json

import pytest
from detectron2.data import DatasetCatalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eseg_d2.apps.doctor import quick_check
from eseg_d2.data.datasets.panoptic_format import register_own
from eseg_d2.data.images import read_image
from eseg_d2.data.panoptic_png import read_panoptic_png, segment_index

VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.just([]), st.just({})),
    st.sampled_from([0.0, 1.0, 7.0, 90.0, 0.5, -1.0, 1e308, float("nan"), float("inf"), 2**63]),
    st.sampled_from([0, 1, 7, 11, "11", 11.0, 90, "7", "x\0", "\ud800", "../x", 0xFFFFFF, 1 << 24]),
)


def paths(value):
    """Return the path of every value in a JSON, such as "images/0/width"."""
    children = {dict: dict.items, list: enumerate}.get(type(value), lambda value: ())(value)
    below = [(str(key), path) for key, child in children for path in ["", *paths(child)]]
    return ["/".join(filter(None, pair)) for pair in below]


def load(entry):
    """Read everything that a training run reads."""
    register_own([entry])
    for record in DatasetCatalog.get(entry["name"]):
        image = read_image(record["file_name"], "BGR")
        png = record["pan_seg_file_name"]
        ids = read_panoptic_png(png)
        segment_index(ids, record["segments_info"], png)
        if image.shape[:2] != ids.shape:
            raise ValueError("sizes")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_doctor_finds_what_the_loader_refuses(tiny, data):
    split = tiny.train
    original = json.dumps(split.content)
    path = data.draw(st.sampled_from(paths(split.content)))
    split.put(path, data.draw(VALUES | st.just(...)))
    cfg = tiny.config()
    cfg.DATASETS.TEST = ()
    split.content = json.loads(original)
    try:
        load(split.entry())
    except (ValueError, FileNotFoundError) as e:
        with pytest.raises(ValueError):
            quick_check(cfg, eval_only=False)
            pytest.fail(f"passed, but the loader says: {e}")
    else:
        try:
            quick_check(cfg, eval_only=False)
        except ValueError as e:
            for code in "segment-incomplete", "iscrowd-invalid", "category-incomplete":
                assert code not in str(e), "refused, but the loader takes it"
