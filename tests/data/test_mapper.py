"""The targets that mappers make for training, and labels out of range."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, Metadata
from detectron2.data import transforms as T
from detectron2.structures import Instances
from PIL import Image

import eseg_d2
from eseg_d2.data.datasets.panoptic_format import metadata_from_categories
from eseg_d2.data.mapper import LabelCheckedMapper, PanopticMapper
from eseg_d2.data.panoptic_png import segment_id_to_rgb
from eseg_d2.structures.label_space import LabelSpace

CATEGORIES = [
    {"id": 40, "name": "car", "isthing": 1},
    {"id": 7, "name": "road", "isthing": 0},
    {"id": 300, "name": "person", "isthing": 1},
]
SPACE = LabelSpace.from_metadata(Metadata(name="t", **metadata_from_categories(CATEGORIES)))
SEGMENTS = [  # (id, contiguous class, iscrowd)
    (70_001, 0, 0),
    (5, 1, 0),
    (256, 2, 0),
    (17, 2, 1),
]


@pytest.fixture
def record(tmp_path):
    ids = np.full((20, 30), 5)
    ids[:4] = 0  # void
    ids[6:12, 3:9] = 70_001
    ids[10:18, 7:15] = 256
    ids[0:3, 20:25] = 17
    return write(tmp_path, ids)


def write(folder, ids, image_shape=None):
    Image.fromarray(segment_id_to_rgb(ids)).save(folder / "label.png")
    shape = image_shape or ids.shape
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    return {
        "file_name": str(folder / "image.png"),
        "pan_seg_file_name": str(folder / "label.png"),
        "image_id": 1,
        "segments_info": [
            {"id": i, "category_id": c, "isthing": bool(SPACE.is_thing[c]), "iscrowd": crowd}
            for i, c, crowd in SEGMENTS
        ],
        "ids": ids,
    }


def mapper(*augmentations):
    return PanopticMapper(augmentations=list(augmentations), image_format="RGB", label_space=SPACE)


def expected_semantic(ids):
    semantic = np.full(ids.shape, 255)
    for segment_id, contiguous, _ in SEGMENTS:
        semantic[ids == segment_id] = contiguous
    return semantic


def test_more_segments_than_fit_in_a_byte(tmp_path):
    """Every pixel of 400 segments keeps its segment when the image is resized."""
    ids = np.arange(1, 401).reshape(20, 20).repeat(3, 0).repeat(3, 1)
    record = write(tmp_path, ids)
    record["segments_info"] = [
        {"id": i, "category_id": 0, "isthing": True, "iscrowd": 0} for i in range(1, 401)
    ]
    instances = mapper(T.ResizeTransform(60, 60, 120, 120))(record)["instances"]
    assert len(instances) == 400
    for i in 0, 254, 255, 256, 399:
        (rows, columns) = np.nonzero(instances.gt_masks.tensor[i].numpy())
        top, left = divmod(i, 20)
        assert rows.min() == 6 * top and rows.max() == 6 * top + 5
        assert columns.min() == 6 * left and len(rows) == 36


@pytest.mark.parametrize("padding", [0, 255])
def test_padding_is_ignored_in_training(record, padding):
    """Detectron2 0.6 pads label maps with 0, later ones with 255."""
    pad = T.PadTransform(0, 0, 6, 4, orig_w=30, orig_h=20, seg_pad_value=padding)
    out = mapper(pad)(record)
    np.testing.assert_array_equal(out["sem_seg"][:20, :30], expected_semantic(record["ids"]))
    assert (out["sem_seg"][20:] == 255).all() and (out["sem_seg"][:, 30:] == 255).all()


def test_targets_of_the_whole_image(record):
    out = mapper()(record)
    np.testing.assert_array_equal(out["sem_seg"], expected_semantic(record["ids"]))
    instances = out["instances"]
    assert instances.gt_classes.tolist() == [0, 1]  # ROI classes; the crowd is left out
    for mask, segment_id in zip(instances.gt_masks.tensor.numpy(), (70_001, 256), strict=True):
        np.testing.assert_array_equal(mask, record["ids"] == segment_id)
    assert instances.gt_boxes.tensor.tolist() == [[3, 6, 9, 12], [7, 10, 15, 18]]
    assert out["image"].dtype == torch.uint8 and out["image"].shape == (3, 20, 30)


def test_flip_and_crop_move_all_targets_together(record):
    out = mapper(T.RandomFlip(prob=1.0))(record)
    ids = record["ids"][:, ::-1]
    np.testing.assert_array_equal(out["sem_seg"], expected_semantic(ids))
    np.testing.assert_array_equal(out["instances"].gt_masks.tensor[1], ids == 256)
    out = mapper(T.CropTransform(0, 12, 30, 8))(record)
    # the crop removes the first thing and cuts the second
    assert out["instances"].gt_classes.tolist() == [1]
    assert out["instances"].gt_boxes.tensor.tolist() == [[7, 0, 15, 6]]


def test_image_without_things_is_kept(tmp_path):
    out = mapper()(write(tmp_path, np.full((8, 9), 5)))
    assert len(out["instances"]) == 0
    assert out["instances"].gt_masks.tensor.shape == (0, 8, 9)
    assert (out["sem_seg"] == 1).all()


def test_id_missing_in_segments_info_is_named(tmp_path):
    ids = np.full((8, 9), 5)
    ids[0, 0] = 6
    with pytest.raises(ValueError, match=r"label.png.*\[6\].*segments_info"):
        mapper()(write(tmp_path, ids))


def test_duplicate_ids_are_named(record):
    record["segments_info"].append(dict(record["segments_info"][0]))
    with pytest.raises(ValueError, match=r"label.png.*70001"):
        mapper()(record)


def test_image_and_label_of_different_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="9x8.*label.png 9x7|image.png is 9x8"):
        mapper()(write(tmp_path, np.full((7, 9), 5), image_shape=(8, 9)))


@pytest.fixture
def cfg(scenes):
    cfg = get_cfg()
    eseg_d2.add_eseg_config(cfg)
    return cfg


def test_targets_from_a_config_are_consistent_and_in_range(cfg, root):
    cfg.merge_from_file(str(root / "configs/scenes/rsp_panoptic_R18_coco.yaml"))
    name = cfg.DATASETS.TRAIN[0]
    chosen = PanopticMapper(cfg, name)
    assert chosen.label_space.semantic_classes == "stuff_and_things"
    for record in DatasetCatalog.get(name):
        out = chosen(record)
        assert out["image"].shape[1:] == out["sem_seg"].shape == out["instances"].image_size
        labels = set(out["sem_seg"].unique().tolist())
        assert labels <= {*range(chosen.label_space.num_semantic), 255}
        boxes = out["instances"].gt_boxes
        assert boxes.nonempty().all()


def test_crop_of_the_config_is_the_size_of_the_output(cfg, root):
    """Cropping follows resizing, which would otherwise change the size of the crop."""
    cfg.merge_from_file(str(root / "configs/cityscapes/rsp_semantic_R50.yaml"))
    cfg.INPUT.CROP.SIZE = (48, 64)
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 128)
    name = "scenes_cityscapes_panoptic_train"
    out = PanopticMapper(cfg, name)(DatasetCatalog.get(name)[0])
    assert out["image"].shape == (3, 48, 64) and out["sem_seg"].shape == (48, 64)
    assert "instances" not in out  # a semantic model does not need them
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    with pytest.raises(ValueError, match="SINGLE_CATEGORY_MAX_AREA is 0.75"):
        PanopticMapper(cfg, name)


def test_colour_jitter_changes_only_colours(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (64,), "none"
    name = "scenes_cityscapes_panoptic_train"
    record = DatasetCatalog.get(name)[0]
    plain = PanopticMapper(cfg, name)(record)
    cfg.INPUT.COLOR_JITTER = 0.5
    jittered = [PanopticMapper(cfg, name)(record) for _ in range(2)]
    assert not torch.equal(jittered[0]["image"], jittered[1]["image"])
    for out in jittered:
        assert out["image"].dtype == torch.uint8
        assert torch.equal(out["sem_seg"], plain["sem_seg"])


def check(sample, **files):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 4
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 255
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return LabelCheckedMapper(cfg, lambda dataset_dict: sample)({"file_name": "a.jpg", **files})


def sem_seg(*labels):
    return {"sem_seg": torch.tensor(labels).reshape(1, -1)}


def instances(*classes):
    found = Instances((4, 4))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"instances": found}


@pytest.mark.parametrize(
    "sample",
    [
        sem_seg(0, 3, 255),
        sem_seg(255, 255),
        instances(0, 1),
        instances(),
        {"instances": Instances((4, 4))},  # an image without annotations
        {**sem_seg(1), **instances(1)},
        {"image": 1},
    ],
)
def test_valid_labels_pass_through(sample):
    assert check(sample) is sample


@pytest.mark.parametrize("wrong", [[4], [-1], [7, 254], [256]])
def test_semantic_labels_out_of_range_are_named(wrong):
    sample = {**sem_seg(0, 3, 255, *wrong, *wrong), **instances(1)}
    message = rf"a.png: pixels have the labels \[{', '.join(map(str, wrong))}\]; expected 0 .. 3 "
    with pytest.raises(ValueError, match=rf"{message}.*NUM_CLASSES\) or 255"):
        check(sample, sem_seg_file_name="a.png")
    with pytest.raises(ValueError, match="a.jpg: pixels"):
        check(sample)


@pytest.mark.parametrize("wrong", [2, -1, 90])
def test_instance_classes_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=rf"a.jpg: instances .* \[{wrong}\]; expected 0 .. 1 "):
        check({**sem_seg(0), **instances(0, wrong, 1)})
