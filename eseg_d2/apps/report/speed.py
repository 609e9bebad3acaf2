"""How fast a run was, by its metrics.json."""

from statistics import median

from eseg_d2.apps.report.figures import finite
from eseg_d2.apps.report.run_files import Run

__all__ = ["data_shares", "speed_rows", "throughput"]


def throughput(run: Run) -> list[tuple[float, float]]:
    """(iteration, images per second over all GPUs): as written, else batch by seconds."""
    batch = finite(run.setting("SOLVER.IMS_PER_BATCH"))
    points = []
    for row in run.metrics:
        if "images_per_second" in row:
            points.append((row["iteration"] + 1, row["images_per_second"]))
        elif batch and row.get("time", 0) > 0:
            points.append((row["iteration"] + 1, batch / row["time"]))
    return points


def data_shares(run: Run) -> list[tuple[float, float]]:
    """(iteration, percent of an iteration's time that it waited for data)."""
    points = []
    for row in run.metrics:
        if "data_share" in row:
            points.append((row["iteration"] + 1, 100 * row["data_share"]))
        elif "data_time" in row and row.get("time", 0) > 0:
            points.append((row["iteration"] + 1, 100 * min(row["data_time"] / row["time"], 1)))
    return points


def speed_rows(run: Run) -> dict[str, str]:
    """What to tell of the speed, as text; only what is known."""
    rows = {}
    speeds, shares = throughput(run), data_shares(run)
    seconds = [row["time"] for row in run.metrics if "time" in row]
    memory = [row["max_mem"] for row in run.metrics if "max_mem" in row]
    if speeds:
        rows["images per second, median"] = f"{median(y for _, y in speeds):.3g}"
    if seconds:
        rows["seconds an iteration, median"] = f"{median(seconds):.3g}"
    if shares:
        rows["waiting for data, median"] = f"{median(y for _, y in shares):.1f} %"
    if seconds and run.iterations:
        rows["time in iterations, about"] = _duration(median(seconds) * run.iterations)
    if memory:
        on_gpu = str(run.setting("MODEL.DEVICE", "")).startswith("cuda")
        kind = "GPU memory" if on_gpu else "memory of the process (RSS)"
        rows[f"{kind}, largest"] = f"{max(memory) / 1024:.1f} GiB"
    return rows


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
