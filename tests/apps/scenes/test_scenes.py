"""Rendered scenes: exact labels, every class, and surfaces that only context tells apart."""

import json
from functools import lru_cache

import numpy as np
import pytest
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import name2label
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.apps.scenes import render_scene
from eseg_d2.apps.scenes.labels import CATEGORIES, LABELS, color_table, train_id_table
from eseg_d2.apps.scenes.people import human_parts, sample_human
from eseg_d2.apps.scenes.street import sample_street

THINGS = [c.id for c in CATEGORIES if c.hasInstances]


@lru_cache
def _scenes(seed, count=40, size=(128, 256)):
    return [render_scene(np.random.SeedSequence((seed, 0, i)), *size) for i in range(count)]


@pytest.fixture(scope="module")
def scenes():
    return _scenes(0)


def _rasterize(scene):
    height, width = scene.label_ids.shape
    objects = [{"label": o.label, "polygon": o.polygon.tolist()} for o in scene.objects]
    content = {"imgHeight": height, "imgWidth": width, "objects": objects}
    annotation = Annotation()
    annotation.fromJsonText(json.dumps(content))
    return np.asarray(createLabelImage(annotation, "ids"))


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_label_tables_match_cityscapes(label):
    theirs = name2label[label.name]
    assert (label in CATEGORIES) == (not theirs.ignoreInEval)
    assert tuple(color_table()[label.id]) == theirs.color
    assert train_id_table()[label.id] == theirs.trainId


def test_scene_is_determined_by_its_seed():
    first, again, other = (render_scene(seed, 96, 160) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.instance_ids, again.instance_ids)
    assert [o.label for o in first.objects] == [o.label for o in again.objects]
    assert not np.array_equal(first.image, other.image)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(64, 300), st.integers(64, 400))
def test_scenes_of_any_size_have_consistent_maps(seed, height, width):
    scene = render_scene(seed, height, width)
    assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
    assert scene.label_ids.dtype == np.uint8 and scene.instance_ids.dtype == np.uint16
    ids = scene.instance_ids
    assert np.array_equal(scene.label_ids, np.where(ids < 1000, ids, ids // 1000))
    assert set(np.unique(scene.label_ids)) <= {label.id for label in LABELS.values()}
    assert set(np.unique(ids[ids >= 1000] // 1000)) <= set(THINGS)
    for thing in THINGS:
        numbers = np.unique(ids[ids // 1000 == thing]) - thing * 1000
        assert numbers.tolist() == list(range(len(numbers)))
    for entry in scene.objects:
        assert len(entry.polygon) >= 3
        assert entry.polygon.min() >= 0
        assert (entry.polygon < (width, height)).all()


@pytest.mark.parametrize("size", [(64, 128), (128, 256), (301, 517)])
def test_polygons_drawn_by_cityscapesscripts_give_the_labels(size):
    for scene in _scenes(3, 4, size):
        assert (_rasterize(scene) == scene.label_ids).mean() > 0.999


@pytest.mark.parametrize("seed", [0, 1])
def test_forty_scenes_hold_every_class_void_crowds_and_scenes_without_things(seed):
    scenes = _scenes(seed)
    seen = np.stack([np.bincount(s.label_ids.ravel(), minlength=34) > 0 for s in scenes])
    for label in LABELS.values():
        assert seen[:, label.id].any(), label.name
    for thing in THINGS:
        assert seen[:, thing].mean() >= 0.3, thing
    for stuff in (c.id for c in CATEGORIES if not c.hasInstances):
        assert seen[:, stuff].mean() >= 0.8, stuff
    crowds = {i for s in scenes for i in np.unique(s.instance_ids).tolist() if i in THINGS}
    assert {LABELS["car"].id, LABELS["person"].id} <= crowds
    assert 0.0 < (~seen[:, THINGS].any(1)).mean() < 0.25


def test_things_have_many_sizes(scenes):
    areas = np.concatenate(
        [np.unique(s.instance_ids[s.instance_ids >= 1000], return_counts=True)[1] for s in scenes]
    )
    assert areas.min() >= 6
    assert (areas < 40).any() and (areas > 3000).any()


def test_void_covers_a_small_part(scenes):
    shares = [np.isin(s.label_ids, [0, 1, 3, 4, 5]).mean() for s in scenes]
    assert 0 < np.mean(shares) < 0.08


def _touch(one, other):
    grown = np.pad(one, 1)
    near = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
    return (near & other).any()


def test_riders_touch_bicycles(scenes):
    touching = []
    for scene in scenes:
        bicycles = scene.label_ids == LABELS["bicycle"].id
        for number in np.unique(scene.instance_ids[scene.label_ids == LABELS["rider"].id]):
            touching.append(_touch(scene.instance_ids == number, bicycles))
    assert len(touching) > 10
    assert np.mean(touching) > 0.9  # a pole may hide where they touch


def test_figure_keeps_its_shape_wherever_it_stands():
    figure = sample_human(np.random.default_rng(0))
    low = human_parts(figure, np.array([40.0, 90.0]), 30.0)
    high = human_parts(figure, np.array([40.0, 80.0]), 30.0)
    for one, other in zip(low, high, strict=True):
        assert one.color == other.color
        moved = one.polygons[0] - other.polygons[0]
        np.testing.assert_allclose(moved, np.broadcast_to((0.0, 10.0), moved.shape), atol=1e-9)


def test_road_and_sidewalk_often_share_their_paving():
    streets = [sample_street(np.random.default_rng(seed)) for seed in range(200)]
    same = [s.materials["road"] == s.materials["sidewalk"] and
            s.tints["road"] == s.tints["sidewalk"] for s in streets]  # fmt: skip
    assert 0.25 < np.mean(same) < 0.75
    for label in ("road", "sidewalk"):
        assert {s.materials[label] for s in streets} == {"asphalt", "concrete", "pavers", "cobbles"}


def test_same_pixel_is_road_in_some_scenes_and_sidewalk_in_others():
    bottom = [scene.label_ids[100, 128] for scene in _scenes(0) + _scenes(1)]
    assert {LABELS["road"].id, LABELS["sidewalk"].id} <= set(bottom)
