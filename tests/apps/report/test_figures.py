import math

from eseg_d2.apps.report.figures import class_figures, finite, flatten, key_figures, summary_figures


def test_only_finite_numbers_are_numbers():
    assert finite(2) == 2.0
    values = (None, True, "3", math.nan, math.inf, [1])
    assert [finite(value) for value in values] == [None] * len(values)


def test_results_of_one_and_of_several_data_sets():
    one = {"sem_seg": {"mIoU": 50.0, "IoU-traffic-light": 1.0, "IoU-car": None}}
    flat = flatten(one)
    assert flat == {"sem_seg/mIoU": 50.0, "sem_seg/IoU-traffic-light": 1.0, "sem_seg/IoU-car": None}
    assert summary_figures(flat) == {"sem_seg/mIoU": 50.0}
    assert class_figures(flat) == {"traffic-light": 1.0, "car": None}
    assert key_figures(flat) == {"sem_seg/mIoU": "mIoU"}
    two = flatten({"val": one, "test": {"sem_seg": {"mIoU": 1.0, "IoU-car": 9.0}}})
    assert key_figures(two) == {"val/sem_seg/mIoU": "mIoU, val", "test/sem_seg/mIoU": "mIoU, test"}
    assert class_figures(two)["traffic-light"] == 1.0 and class_figures(two)["car"] is None


def test_key_figures_come_in_one_order_and_without_their_relatives():
    keys = ["segm/AP", "segm/AP50", "panoptic_seg/PQ_th", "panoptic_seg/PQ", "sem_seg/mIoU"]
    assert [*key_figures(keys).values()] == ["PQ", "mIoU", "mask AP"]
