import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import Instances

from eseg_d2.data.mapper import LabelCheckedMapper


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
        {"instances": Instances((4, 4))},  # of an image without annotations
        {**sem_seg(1), **instances(1)},
        {"image": 1},
    ],
)
def test_right_labels_pass_through(sample):
    assert check(sample) is sample


@pytest.mark.parametrize("wrong", [[4], [-1], [7, 254], [256]])
def test_wrong_semantic_labels(wrong):
    sample = {**sem_seg(0, 3, 255, *wrong, *wrong), **instances(1)}
    message = rf"a.png: pixels have the labels \[{', '.join(map(str, wrong))}\]; expected 0 .. 3 "
    with pytest.raises(ValueError, match=rf"{message}.*NUM_CLASSES\) or 255"):
        check(sample, sem_seg_file_name="a.png")
    with pytest.raises(ValueError, match="a.jpg: pixels"):
        check(sample)


@pytest.mark.parametrize("wrong", [2, -1, 90])
def test_wrong_classes_of_instances(wrong):
    with pytest.raises(ValueError, match=rf"a.jpg: instances .* \[{wrong}\]; expected 0 .. 1 "):
        check({**sem_seg(0), **instances(0, wrong, 1)})
