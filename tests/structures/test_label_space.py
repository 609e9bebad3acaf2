"""The mapping between dataset ids, contiguous ids, semantic train ids and ROI classes."""

import numpy as np
import pytest
from detectron2.data import Metadata, MetadataCatalog
from hypothesis import given
from hypothesis import strategies as st

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.panoptic_format import metadata_from_categories
from eseg_d2.structures.label_space import LabelSpace


@st.composite
def category_lists(draw):
    ids = draw(st.lists(st.integers(0, 400), min_size=1, max_size=20, unique=True))
    things = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return [
        {"id": i, "name": f"class {i}", "isthing": int(t)} for i, t in zip(ids, things, strict=True)
    ]


def space_of(categories, semantic_classes="all"):
    metadata = Metadata(name="test", **metadata_from_categories(categories))
    return LabelSpace.from_metadata(metadata, semantic_classes)


@given(category_lists(), st.sampled_from(["all", "stuff_and_things"]))
def test_mappings_agree_for_any_ids_in_any_order(categories, semantic_classes):
    space = space_of(categories, semantic_classes)
    for contiguous, category in enumerate(categories):
        assert space.names[contiguous] == category["name"]
        assert space.to_contiguous(category["id"]) == contiguous
        assert space.to_dataset(contiguous) == category["id"]
        assert space.is_thing[contiguous] == bool(category["isthing"])
        train_id = space.contiguous_to_semantic[contiguous]
        assert 0 <= train_id < space.num_semantic
        if category["isthing"]:
            assert space.roi_to_contiguous[space.contiguous_to_roi[contiguous]] == contiguous
            assert semantic_classes == "all" or train_id == 0
        else:
            assert space.contiguous_to_roi[contiguous] == -1
            assert space.semantic_to_contiguous[train_id] == contiguous
    assert len(space.semantic_names) == space.num_semantic
    assert len(space.roi_to_contiguous) == space.num_things


def test_ids_are_mapped_in_any_shape():
    space = space_of([{"id": i, "name": str(i), "isthing": 0} for i in (9, 3, 200)])
    np.testing.assert_array_equal(space.to_contiguous([[3, 9], [200, 3]]), [[1, 0], [2, 1]])
    np.testing.assert_array_equal(space.to_dataset([[2], [0]]), [[200], [9]])


def test_cityscapes_road_is_train_id_0_and_things_start_at_11():
    space = LabelSpace.from_metadata(MetadataCatalog.get("cityscapes_fine_panoptic_train"))
    assert (space.num_classes, space.num_things, space.num_semantic) == (19, 8, 19)
    assert space.names[0] == "road" and space.dataset_ids[0] == 7
    assert space.thing_ids == tuple(range(11, 19))


@pytest.mark.parametrize(("mode", "num_semantic"), [("all", 133), ("stuff_and_things", 54)])
def test_coco_has_the_expected_class_counts(mode, num_semantic):
    space = LabelSpace.from_metadata(MetadataCatalog.get("coco_2017_val_panoptic"), mode)
    assert (space.num_classes, space.num_things) == (133, 80)
    assert space.num_semantic == num_semantic


def test_invalid_ids_and_metadata_are_named():
    space = space_of([{"id": 5, "name": "a", "isthing": 1}])
    with pytest.raises(ValueError, match=r"unknown category ids \[6, 7\].*\[5\]"):
        space.to_contiguous([5, 7, 6])
    with pytest.raises(ValueError, match="SEMANTIC_CLASSES is 'things'"):
        space_of([{"id": 5, "name": "a", "isthing": 1}], "things")
    with pytest.raises(ValueError, match="coco_2017_val.* is no panoptic"):
        LabelSpace.from_metadata(MetadataCatalog.get("coco_2017_val"))
    with pytest.raises(ValueError, match="_separated"):
        LabelSpace.from_metadata(MetadataCatalog.get("coco_2017_val_panoptic_separated"))
    with pytest.raises(ValueError, match="share an id"):
        metadata_from_categories([{"id": 1, "name": n, "isthing": 0} for n in "ab"])
    with pytest.raises(ValueError, match="ignored label 0"):
        LabelSpace(names=("a",), dataset_ids=(1,), thing_ids=(), ignore_label=0)
