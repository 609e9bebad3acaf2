"""Names and choice of the metrics that a report shows."""

import math

from eseg_d2.apps.report.metrics import class_metrics, finite, flatten, key_metrics, summary_metrics


def test_anything_but_a_finite_number_becomes_none():
    assert finite(2) == 2.0
    values = (None, True, "3", math.nan, math.inf, [1])
    assert [finite(value) for value in values] == [None] * len(values)


def test_results_of_one_and_of_several_data_sets():
    one = {"sem_seg": {"mIoU": 50.0, "IoU-traffic-light": 1.0, "IoU-car": None}}
    flat = flatten(one)
    assert flat == {"sem_seg/mIoU": 50.0, "sem_seg/IoU-traffic-light": 1.0, "sem_seg/IoU-car": None}
    assert summary_metrics(flat) == {"sem_seg/mIoU": 50.0}
    assert class_metrics(flat) == {"traffic-light": 1.0, "car": None}
    assert key_metrics(flat) == {"sem_seg/mIoU": "mIoU"}
    two = flatten({"val": one, "test": {"sem_seg": {"mIoU": 1.0, "IoU-car": 9.0}}})
    assert key_metrics(two) == {"val/sem_seg/mIoU": "mIoU, val", "test/sem_seg/mIoU": "mIoU, test"}
    assert class_metrics(two)["traffic-light"] == 1.0 and class_metrics(two)["car"] is None


def test_key_metrics_have_a_fixed_order_and_leave_out_secondary_ones():
    keys = ["segm/AP", "segm/AP50", "panoptic_seg/PQ_th", "panoptic_seg/PQ", "sem_seg/mIoU"]
    assert [*key_metrics(keys).values()] == ["PQ", "mIoU", "mask AP"]
