"""Speed from metrics.json; parameters and multiply-adds by part of the model."""

from pathlib import Path

import pytest
from detectron2.modeling import build_model

from eseg_d2.apps.report.cost import (
    data_shares,
    model_size,
    parameters_by_part,
    speed_rows,
    throughput,
)
from eseg_d2.apps.report.run_folder import Run
from eseg_d2.engine import load_config


def run_of(*rows, batch=4):
    config = {"SOLVER": {"IMS_PER_BATCH": batch}, "MODEL": {"DEVICE": "cpu"}}
    return Run(
        Path("x"),
        "x",
        config=config,
        metrics=[dict(row, iteration=i) for i, row in enumerate(rows)],
    )


def test_speed_is_read_or_computed_from_the_times():
    run = run_of(
        {"images_per_second": 7.0, "data_share": 0.25, "time": 1.0},
        {"time": 0.5, "data_time": 0.1},
        {"time": 0.0, "data_time": 0.1},
        {"panoptic_seg/PQ": 3.0},
    )
    assert throughput(run) == [(1, 7.0), (2, 8.0)]
    assert data_shares(run) == [(1, 25.0), (2, pytest.approx(20.0))]


def test_speed_rows_show_what_is_known():
    assert speed_rows(run_of({"total_loss": 1.0})) == {}
    rows = speed_rows(run_of(*[{"time": 2.0, "max_mem": 2048.0, "total_loss": 1.0}] * 90))
    assert rows == {
        "images per second, median": "2",
        "seconds an iteration, median": "2",
        "time in iterations, about": "3 min",
        "memory of the process (RSS), largest": "2.0 GiB",
    }
    run = run_of({"max_mem": 1024.0})
    run.config["MODEL"] = {"DEVICE": "cuda"}
    assert speed_rows(run) == {"GPU memory, largest": "1.0 GiB"}


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("rsp_panoptic_R18_coco", ["backbone", "pyramid", "head", "proposals", "roi_heads"]),
        ("deeplab_v3_R50", ["backbone", "head"]),
    ],
)
def test_parameters_of_the_parts_sum_to_the_total(config, parts, root, scenes):
    cfg = load_config(str(root / f"configs/scenes/{config}.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    counts = parameters_by_part(model)
    assert [*counts] == parts
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    size = model_size(cfg)
    assert size["params"] == counts and [*size["macs"]] == parts
    assert size["size"] == (192, 384)  # 64x128, resized by INPUT.MIN_SIZE_TEST
    assert cfg.MODEL.DEVICE == "cpu"


def test_only_parameters_are_counted_without_the_data_set(root, scenes):
    cfg = load_config(str(root / "configs/scenes/rsp_panoptic_R18_coco.yaml"), [])
    cfg.DATASETS.TEST = ("coco_2017_val_panoptic",)
    size = model_size(cfg)
    assert size["params"] and size["macs"] == {} and size["size"] is None
