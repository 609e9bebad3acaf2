"""Which curves of a training are shown, and in what order."""

from collections.abc import Iterator, Sequence

from eseg_d2.apps.report.charts import Chart, Series
from eseg_d2.apps.report.cost import data_shares, throughput
from eseg_d2.apps.report.metrics import key_metrics, summary_metrics
from eseg_d2.apps.report.run_folder import Run

__all__ = ["evaluation_charts", "training_charts"]

_OTHERS = {"lr": "learning rate", "grad_norm": "norm of the gradient"}


def training_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return a chart for each quantity that a run has, with a curve for each run.

    The total loss is first; then come the other losses, learning rate, gradient and speed.
    """
    charts = [Chart("total loss", [*_losses(runs)])]
    keys = {key for run in runs for row in run.metrics for key in row}
    titles = {key: key for key in sorted(keys) if key.startswith("loss")} | _OTHERS
    for key, title in titles.items():
        charts.append(Chart(title, [_series(run, i, key) for i, run in enumerate(runs)]))
    speeds = [Series(run.label, throughput(run), i, noisy=True) for i, run in enumerate(runs)]
    shares = [Series(run.label, data_shares(run), i, noisy=True) for i, run in enumerate(runs)]
    charts.append(Chart("images per second", speeds))
    charts.append(Chart("waiting for data, % of the time", shares))
    return [chart.draw() for chart in charts if chart.series]


def evaluation_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return charts of the key metrics (without any, of all over all classes) by evaluation.

    There is none if no run was evaluated more than once.
    """
    if all(len(run.evaluations) < 2 for run in runs):
        return []
    keys = dict.fromkeys(key for run in runs for _, flat in run.evaluations for key in flat)
    chosen = key_metrics(keys) or {key: key for key in summary_metrics(keys)}
    charts = []
    for key, name in chosen.items():
        series = []
        for i, run in enumerate(runs):
            points = [
                (run.done_at(iteration), flat[key])
                for iteration, flat in run.evaluations
                if flat.get(key) is not None
            ]
            series.append(Series(run.label, points, i))
        charts.append(Chart(f"{name}, %", series))
    return [chart.draw() for chart in charts if chart.series]


def _losses(runs: Sequence[Run]) -> Iterator[Series]:
    for i, run in enumerate(runs):
        yield _series(run, i, "total_loss")
        validation = _series(run, i, "validation/total_loss")
        yield Series(f"{run.label}, validation", validation.points, i, dashed=True)


def _series(run: Run, color: int, key: str) -> Series:
    points = [(row["iteration"] + 1, row[key]) for row in run.metrics if key in row]
    return Series(run.label, points, color, noisy=key != "lr")
