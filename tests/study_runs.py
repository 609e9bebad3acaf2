"""Runs of a study that look trained: their files are written by hand."""

import json

import numpy as np


def write_run(
    run, *, iterations=600, steps=(), done=None, seconds=1.0, miou=50.0, results=None, **environment
):
    """Write what train_net.py leaves in the run's folder.

    Args:
        run: to be written; ``iterations`` is its SOLVER.MAX_ITER, ``steps`` its SOLVER.STEPS.
        done: iterations after which it was last evaluated; by default all.
        seconds: of an iteration; None: it was too short to tell.
        miou: also the IoU of the class road; that of car is undefined.
        results: of further tasks.
        environment: of run.json.
    """
    (run.folder / "inference").mkdir(parents=True, exist_ok=True)
    iou = {"mIoU": miou, "IoU-road": miou, "IoU-sidewalk": 20.0, "IoU-car": None, "ACC-road": 1.0}
    written = {
        "overrides.json": list(run.overrides),
        "config.yaml": {"SOLVER": {"MAX_ITER": iterations, "STEPS": list(steps)}},
        "evaluations.json": [{"iteration": (done or iterations) - 1, "results": {}}],
        "results.json": {"sem_seg": iou, **(results or {})},
        "run.json": {"environment": environment},
        "inference/sem_seg_confusion.json": {
            "classes": ["road", "sidewalk", "car"],
            "pixels": np.eye(3).tolist(),
        },
    }
    for name, content in written.items():
        (run.folder / name).write_text(json.dumps(content))
    times = [] if seconds is None else [{"time": 0.5 * seconds}, {"time": 1.5 * seconds}]
    lines = [json.dumps(row) for row in (*times, {"iteration": iterations - 1})]
    (run.folder / "metrics.json").write_text("\n".join(lines) + "\n")
