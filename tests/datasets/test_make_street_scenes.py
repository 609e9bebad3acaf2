"""The command that makes street scenes."""

import json
import runpy

import pytest


@pytest.fixture(scope="module")
def main(root):
    return runpy.run_path(str(root / "datasets/make_street_scenes.py"))["main"]


def _arguments(output, **changes):
    values = {"output": output, "format": "coco", "num-train": 2, "num-val": 1, "size": "64x128",
              "seed": 0, "workers": 1, **changes}  # fmt: skip
    return [text for key, value in values.items() for text in (f"--{key}", str(value))]


def test_scenes_are_made_once_and_the_command_says_so(main, tmp_path, capsys):
    output = tmp_path / "coco"
    assert main(_arguments(output)) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("coco: made\n")
    assert "train scenes" in captured.err
    remembered = json.loads((output / "street_scenes.json").read_text())
    assert remembered["size"] == [64, 128]
    assert main(_arguments(output)) == 0
    assert capsys.readouterr().out.endswith("coco: already made\n")


@pytest.mark.parametrize("size", ["128", "128x", "x128", "-64x128", "axb", "128x256x3", "1.5x2"])
def test_malformed_size_is_a_usage_error(main, tmp_path, capsys, size):
    with pytest.raises(SystemExit) as stopped:
        main([*_arguments(tmp_path / "out"), f"--size={size}"])
    assert stopped.value.code == 2
    assert "expected HEIGHTxWIDTH such as 128x256" in capsys.readouterr().err


def test_out_of_range_value_is_a_one_line_error(main, tmp_path, capsys):
    assert main(_arguments(tmp_path / "out", size="8x8")) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: size is 8x8, expected") and error.count("\n") == 1


def test_file_in_the_way_is_an_error(main, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert main(_arguments(output)) == 1
        assert "file" in capsys.readouterr().err
