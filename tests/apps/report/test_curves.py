"""Curves of training and evaluation, and where their points lie."""

from pathlib import Path

from eseg_d2.apps.report.curves import evaluation_charts, training_charts
from eseg_d2.apps.report.run_folder import Run


def points(chart):
    return {s.name: s.points for s in chart.series}


def make_run(name, **keys):
    rows = [{"iteration": i, **{k: v[i] for k, v in keys.items()}} for i in range(2)]
    return Run(Path(name), name, metrics=rows)


def test_runs_share_a_chart_and_validation_is_dashed():
    a = make_run("a", total_loss=[2.0, 1.0], loss_b=[1.0, 0.5], loss_a=[1.0, 0.5])
    b = make_run("b", total_loss=[4.0, 3.0], **{"validation/total_loss": [5.0, 6.0]})
    charts = {chart.title: chart for chart in training_charts([a, b])}
    assert [*charts] == ["total loss", "loss_a", "loss_b"]
    assert points(charts["total loss"]) == {
        "a": [(1, 2.0), (2, 1.0)],
        "b": [(1, 4.0), (2, 3.0)],
        "b, validation": [(1, 5.0), (2, 6.0)],
    }
    assert [s.dashed for s in charts["total loss"].series] == [False, False, True]
    assert [s.color for s in charts["total loss"].series] == [0, 1, 1]


def test_repeated_evaluations_are_drawn_at_their_iterations_without_undefined_ones():
    run = make_run("a", total_loss=[2.0, 1.0])
    figures = [{"sem_seg/mIoU": m, "sem_seg/IoU-car": 1.0, "bbox/AP": None} for m in (10.0, 20.0)]
    run.evaluations = [(0, figures[0]), (2, figures[1])]  # the last one follows the end of training
    (chart,) = evaluation_charts([run])
    assert chart.title == "mIoU, %" and points(chart) == {"a": [(1, 10.0), (2, 20.0)]}
    run.evaluations = run.evaluations[:1]
    assert evaluation_charts([run]) == []
