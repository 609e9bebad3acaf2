"""The quick check before training, which can stop a run."""

import logging

import pytest
from special_files import KINDS, REFUSED, make

from eseg_d2.apps.doctor import check, quick_check


def test_valid_data_set_logs_nothing(tiny, caplog):
    quick_check(tiny.config(), eval_only=False)
    assert caplog.text == ""


def test_built_in_scenes_pass(scenes, tiny):
    cfg = tiny.config()
    cfg.DATASETS.TRAIN = ("scenes_cityscapes_panoptic_train",)
    cfg.DATASETS.TEST = ("scenes_cityscapes_panoptic_val", "coco_2017_val")
    quick_check(cfg, eval_only=False)


def test_warnings_are_logged(tiny, caplog):
    del tiny.train.annotations[1]
    with caplog.at_level(logging.WARNING):
        quick_check(tiny.config(), eval_only=False)
    (record,) = caplog.records
    assert "image-without-annotation" in record.getMessage()
    assert "12.jpg" in record.getMessage()


def test_errors_stop_the_run(tiny):
    tiny.train.image().unlink()
    tiny.val.segments()[0]["category_id"] = 1000
    with pytest.raises(ValueError) as error:
        quick_check(tiny.config(), eval_only=False)
    text = str(error.value)
    assert "2 errors" in text
    assert str(tiny.train.image()) in text and "category_id 1000" in text
    assert "tools/check_dataset.py" in text and "DATASETS.QUICK_CHECK False" in text


def test_eval_only_checks_val_only(tiny):
    tiny.train.image().unlink()
    quick_check(tiny.config(), eval_only=True)


def test_files_are_sampled_but_jsons_are_checked_completely(tiny, monkeypatch):
    checked = []
    check_files = check.check_files

    def spy(record):
        checked.append(record.image_id)
        return check_files(record)

    monkeypatch.setattr(check, "check_files", spy)
    tiny.train.image(2).unlink()
    quick_check(tiny.config(), eval_only=False, sample=2)
    assert checked == [11, 12, 21, 22]
    tiny.train.segments(2)[0]["id"] = 0
    with pytest.raises(ValueError, match="segment-id-range"):
        quick_check(tiny.config(), eval_only=False, sample=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["image", "png", "json"])
def test_special_file_is_named_and_never_read(tiny, kind, place):
    cfg = tiny.config()
    path = {"image": tiny.train.image(), "png": tiny.train.png(), "json": tiny.train.json}[place]
    make(kind, path)
    with pytest.raises(ValueError, match=f"{path}.*{REFUSED}"):
        quick_check(cfg, eval_only=False)
