"""Fake the output folders of a study's trained runs."""

import json

import numpy as np


def write_run(
    run, *, iterations=600, steps=(), done=None, seconds=1.0, miou=50.0, results=None, **environment
):
    """Write the files that train_net.py leaves in a run's folder.

    Args:
        run: the run to write.
        iterations, steps: its SOLVER.MAX_ITER and SOLVER.STEPS.
        done: iterations after which it was last evaluated; all of them by default.
        seconds: duration of an iteration; None for a run that was too short to tell.
        miou: the mIoU, and the IoU of the class road; that of the class car is undefined.
        results: results of further tasks.
        environment: the environment in run.json.
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
