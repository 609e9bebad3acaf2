"""tools/convert_weights.py, run as a command."""

import safetensors.torch
import torch
from commands import python


def convert(root, *words):
    return python("tools/convert_weights.py", *words, cwd=root)


def test_weights_are_written(root, tmp_path):
    torch.save({"model": {"a": torch.arange(3.0)}}, tmp_path / "model.pth")
    done = convert(root, tmp_path / "model.pth", "--output", tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(tmp_path / "out.safetensors") in done.stdout
    written = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert written["a"].tolist() == [0, 1, 2]


def test_missing_file_is_reported_without_a_traceback(root, tmp_path):
    done = convert(root, tmp_path / "gone.pth")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "convert_weights.py: cannot get MODEL.WEIGHTS" in done.stderr
    assert f"{tmp_path / 'gone.pth'}': no such file" in done.stderr
