"""The command that draws samples of a data set."""

from commands import python
from PIL import Image

CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"


def test_page_and_contact_sheet_are_written(root, scenes, tmp_path):
    page = tmp_path / "samples.html"
    arguments = ["--config-file", CONFIG, "--dataset", "scenes_cityscapes_panoptic_val"]
    arguments += ["--count", 2, "--no-augmentation", "--output", page]
    done = python("tools/browse_dataset.py", *arguments, cwd=root)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Ground truth: scenes_cityscapes_panoptic_val" in text
    assert text.count("data:image/jpeg;base64,") == 2 * 4
    sheet = Image.open(tmp_path / "samples.png")
    assert sheet.width == 1600 and sheet.height > 300
    assert str(page) in done.stdout and str(tmp_path / "samples.png") in done.stdout
