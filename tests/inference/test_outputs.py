"""Which files a prediction is written to, and label maps."""

import numpy as np
import pytest
from PIL import Image

from eseg_d2.inference.outputs import RESULTS, plan_outputs, write_label_map
from eseg_d2.inference.prediction import ClassTable
from eseg_d2.inference.sources import find_sources


def make_sources(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("")
    return find_sources([str(folder / name) for name in names])


def test_folder_takes_all_results_of_all_sources(tmp_path):
    sources = make_sources(tmp_path / "in", "a.jpg", "b.mp4")
    plan = plan_outputs(tmp_path / "new/out.v2", sources, RESULTS)
    assert (tmp_path / "new/out.v2").is_dir()
    names = {result: path.name for result, path in plan[sources[0].path].items()}
    assert names["overlay"] == "a_overlay.jpg" and names["json"] == "a_segments.json"
    assert plan[sources[1].path]["overlay"].name == "b_overlay.mp4"
    files = [path for paths in plan.values() for path in paths.values()]
    assert len(set(files)) == len(files) == 8


def test_file_takes_one_result_of_a_matching_type(tmp_path):
    image, video = make_sources(tmp_path / "in", "a.jpg", "b.mp4")
    one = plan_outputs(tmp_path / "x.png", [image], ["overlay"])
    assert one == {image.path: {"overlay": tmp_path / "x.png"}}
    assert plan_outputs(tmp_path / "x.webm", [video], ["overlay"])
    for sources, results in (([image, video], ["overlay"]), ([image], ["overlay", "json"])):
        with pytest.raises(ValueError, match="give a folder"):
            plan_outputs(tmp_path / "x.png", sources, results)
    for source, result, name in (
        (image, "labels", "x.jpg"),
        (image, "overlay", "x.mp4"),
        (video, "overlay", "x.jpg"),
        (video, "labels", "x.png"),
    ):
        with pytest.raises(ValueError, match=f"for the {result} of"):
            plan_outputs(tmp_path / name, [source], [result])


def test_inputs_are_not_overwritten(tmp_path):
    (source,) = make_sources(tmp_path / "in", "a.jpg")
    (tmp_path / "link.jpg").symlink_to(source.path)
    for output in tmp_path / "in/a.jpg", tmp_path / "link.jpg":
        with pytest.raises(ValueError, match="is one of the inputs"):
            plan_outputs(output, [source], ["overlay"])
    sources = make_sources(tmp_path / "in", "a.jpg", "a_overlay.jpg")
    with pytest.raises(ValueError, match="is one of the inputs"):
        plan_outputs(tmp_path / "in", sources, ["overlay"])


def test_file_in_the_place_of_the_folder_is_named(tmp_path):
    (source,) = make_sources(tmp_path / "in", "a.jpg")
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="taken is a file"):
        plan_outputs(tmp_path / "taken", [source], ["overlay"])


def test_label_maps_keep_ids_and_colours(tmp_path):
    classes = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)))
    labels = np.array([[0, 1, 255]], np.uint8)
    write_label_map(tmp_path / "l.png", labels, classes)
    image = Image.open(tmp_path / "l.png")
    assert image.mode == "P" and (np.asarray(image) == labels).all()
    assert np.asarray(image.convert("RGB"))[0].tolist() == [[128, 64, 128], [0, 0, 142], [0, 0, 0]]
