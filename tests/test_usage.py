"""Wrong arguments are reported in one line, at once, and nothing is written."""

import runpy
import sys

import pytest

CONFIG = "--config-file configs/scenes/rsp_panoptic_R18_cityscapes.yaml"
CHECK = "tools/check_dataset.py"
BROWSE = f"tools/browse_dataset.py {CONFIG} --output {{folder}}/a.html"


@pytest.fixture
def refused(root, monkeypatch, tmp_path):
    """Return a function that runs a command here and returns its exit status or error message."""

    def run(command: str):
        script, *words = command.format(folder=tmp_path).split()
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
        assert not list(tmp_path.iterdir())
        return end.value.code

    return run


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("demo/make_video.py --output {folder}/a.gif", "ending in"),
        ("demo/make_video.py --output {folder}/a.mp4 --frames 0", "1 to 99"),
        (f"tools/browse_dataset.py {CONFIG} --output {{folder}}/a.png", "ends in .html"),
        (f"{BROWSE} --count 0", "1 or more"),
        (f"{BROWSE} --seed -1", "0 or more"),
        (CHECK, "required"),
        (f"{CHECK} --dataset a {CONFIG}", "not allowed with"),
        (f"{CHECK} --dataset a SOLVER.MAX_ITER 3", "overrides are for --config-file"),
        (f"{CHECK} --dataset a --workers 0", "expected 1 or more"),
        (f"{CHECK} --dataset a --json no/such/folder/a.json", "there is no folder"),
        (f"{CHECK} --dataset scenes_coco_panoptic_tran", "is not registered"),
        (f"{CHECK} --dataset coco_2017_val", "not in the COCO panoptic format"),
        (f"{CHECK} --config-file no/such.yaml", "no/such.yaml"),
        (f"{CHECK} {CONFIG} NO.KEY 1", "NO.KEY"),
        ("tools/report.py", "--run"),
        ("tools/report.py --run a --images -1", "expected 0 or more"),
        ("tools/report.py --run a --run b --weights c", "--weights is for one --run"),
    ],
)
def test_wrong_arguments_are_usage_errors(refused, capsys, command, message):
    assert refused(command) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "tools/browse_dataset.py --config-file no.yaml --output {folder}/a.html",
            "browse_dataset.py: no config file 'no.yaml'",
        ),
        (f"{BROWSE} --dataset x", "browse_dataset.py: data set 'x' is not registered"),
        (
            f"{BROWSE} --dataset coco_2017_val_panoptic",
            "browse_dataset.py: data set 'coco_2017_val_panoptic' is not there",
        ),
        ("tools/report.py --run no/such", "report.py: there is no folder no/such"),
        ("tools/report.py --run configs", "report.py: configs is not the OUTPUT_DIR of a run"),
    ],
)
def test_missing_files_and_data_sets_are_named(refused, scenes, command, message):
    assert refused(command).startswith(message)
