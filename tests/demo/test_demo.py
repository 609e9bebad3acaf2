"""demo/demo.py, mostly called in this process and once run as a command."""

import json
import runpy
from fractions import Fraction

import numpy as np
import pytest
from commands import python
from PIL import Image

from eseg_d2.inference.video import VideoReader, VideoWriter


@pytest.fixture(scope="module")
def main(root):
    return runpy.run_path(str(root / "demo/demo.py"))["main"]


@pytest.fixture
def folder(tmp_path, scene):
    """Write three images, two of which have the same name."""
    image = Image.open(scene).convert("RGB")
    for name in "a.png", "b.jpg", "sub/a.png":
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture
def video(tmp_path, scene):
    """Write a video that pans over a scene."""
    image = np.asarray(Image.open(scene).convert("RGB"))
    with VideoWriter(tmp_path / "pan.mp4", Fraction(10)) as writer:
        for i in range(10):
            writer.write(image[:, 2 * i : 2 * i + 96])
    return tmp_path / "pan.mp4"


def arguments(model, *rest):
    path, overrides, weights = model
    return [
        *("--config-file", path, *map(str, rest)),
        *("--opts", *overrides, "MODEL.WEIGHTS", weights),
    ]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_and_glob_give_every_kind_of_result(main, panoptic_model, folder, tmp_path, capsys):
    out = tmp_path / "out"
    save = "overlay,side_by_side,labels,json"
    inputs = ("--input", folder, f"{folder}/sub/*.png")
    main(arguments(panoptic_model, *inputs, "--output", out, "--save", save))
    assert len(names(out)) == 12 and "b_overlay.jpg" in names(out)
    assert {"in_a_overlay.jpg", "sub_a_overlay.jpg"} <= set(names(out))
    assert "3 of 3 images" in capsys.readouterr().out
    labels = Image.open(out / "b_labels.png")
    assert labels.mode == "P" and labels.size == (128, 64)
    content = json.loads((out / "b_segments.json").read_text())
    ids = {segment["class_id"] for segment in content["segments"]}
    assert ids == set(np.unique(np.asarray(labels)).tolist()) - {255}
    assert Image.open(out / "b_overlay.jpg").size == (640, 320)
    assert Image.open(out / "b_side_by_side.jpg").width > 1280


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_semantic_and_instance_models(main, kind, request, folder, tmp_path):
    model = request.getfixturevalue(f"{kind}_model")
    threshold = () if kind == "semantic" else ("--confidence-threshold", 0.02)
    out = tmp_path / "out"
    options = ("--input", folder, "--output", out, "--batch-size", 2, *threshold)
    main(arguments(model, *options, "--save", "overlay,labels,json"))
    assert len(names(out)) == 6
    assert json.loads((out / "a_segments.json").read_text())["segments"]
    plain = np.asarray(Image.open(folder / "a.png").resize((640, 320)))
    overlay = np.asarray(Image.open(out / "a_overlay.jpg"))
    assert np.abs(overlay.astype(int) - plain).mean() > 5


def test_broken_files_do_not_stop_a_folder(main, semantic_model, folder, tmp_path, capsys):
    (folder / "0.jpg").write_text("no image")
    (folder / "aa.png").symlink_to(folder / "nowhere")
    (folder / "esc\x1b[31m\n.png").write_text("")
    (folder / "v.mp4").write_text("no video")
    out = tmp_path / "out"
    options = ("--input", folder, "--output", out, "--batch-size", 2)
    with pytest.raises(SystemExit) as caught:
        main(arguments(semantic_model, *options))
    message = caught.value.code
    assert message.startswith("demo.py: 4 failed:") and "\x1b" not in message
    for part in (
        "0.jpg: it is not an image",
        "aa.png is a link",
        "31m\\n.png is empty",
        "v.mp4 is not a video",
    ):
        assert part in message
    assert names(out) == ["a_overlay.jpg", "b_overlay.jpg"]
    assert "2 of 5 images" in capsys.readouterr().out


def test_output_file_is_written_and_never_an_input(main, semantic_model, folder, tmp_path):
    before = (folder / "a.png").read_bytes()
    one = ("--input", folder / "a.png", "--output")
    main(arguments(semantic_model, *one, tmp_path / "x.png"))
    assert Image.open(tmp_path / "x.png").format == "PNG"
    with pytest.raises(SystemExit, match="is one of the inputs"):
        main(arguments(semantic_model, *one, folder / "a.png"))
    assert (folder / "a.png").read_bytes() == before


def test_selected_frames_give_every_kind_of_result(main, panoptic_model, video, tmp_path, capsys):
    out = tmp_path / "out"
    save = "overlay,side_by_side,labels,json"
    frames = ("--start", 1, "--stop", 8, "--stride", 3, "--batch-size", 2)
    options = ("--input", video, "--output", out, "--save", save, *frames)
    main(arguments(panoptic_model, *options))
    printed = capsys.readouterr().out
    assert "3 frames of 96 x 64 at 3.3333 frames/s, H.264" in printed and "without sound" in printed
    with VideoReader(out / "pan_overlay.mp4") as reader:
        assert [frame.shape for _, frame in reader.frames()] == [(64, 96, 3)] * 3
    assert names(out / "pan_labels") == ["000001.png", "000004.png", "000007.png"]
    lines = (out / "pan_segments.jsonl").read_text().splitlines()
    assert [(json.loads(x)["frame"], json.loads(x)["time"]) for x in lines] == [
        (1, 0.1),
        (4, 0.4),
        (7, 0.7),
    ]


def test_video_input_may_have_any_suffix(main, semantic_model, video, tmp_path):
    video.rename(tmp_path / "pan.dat")
    options = ("--video-input", tmp_path / "pan.dat", "--output", tmp_path / "x.webm", "--stop", 2)
    main(arguments(semantic_model, *options))
    with VideoReader(tmp_path / "x.webm") as reader:
        assert len(list(reader.frames())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--input", "/nowhere/*.jpg", "--output", "OUT"), "match of a glob: /nowhere"),
        (("--input", "FOLDER", "--output", "OUT/x.png"), "give a folder"),
        (("--input", "FOLDER", "--output", "OUT", "--stride", "0"), "stride of at least 1"),
        (("--input", "FOLDER", "--output", "OUT", "--device", "gpu"), "expected cpu, cuda"),
        (("--input", "FOLDER", "--output", "OUT", "--confidence-threshold", "0.5"), "leave it out"),
        (("--webcam", "87", "--output", "OUT"), "camera 87 cannot be opened"),
    ],
)
def test_error_is_one_line(main, semantic_model, folder, tmp_path, options, message):
    values = {"FOLDER": str(folder), "OUT": str(tmp_path / "out")}
    options = [values.get(o, o.replace("OUT/", f"{tmp_path}/out/")) for o in options]
    with pytest.raises(SystemExit, match=message) as caught:
        main(arguments(semantic_model, *options))
    assert caught.value.code.startswith("demo.py: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--input and --video-input, or --webcam"),
        (("--input", "a.png", "--save", "json"), "--save json needs --output"),
        (("--input", "a.png", "--output", "o", "--save", "masks"), "expected some of overlay"),
        (("--webcam", "--stride", "2"), "not for --webcam"),
        (("--input", "a.png", "--batch-size", "0"), "expected 1 or more"),
    ],
)
def test_wrong_usage_is_reported(main, semantic_model, options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments(semantic_model, *options))
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_camera_is_reported_without_opencvs_output(capfd):
    import cv2

    from eseg_d2.inference.video import Camera

    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(ValueError, match="camera 87 cannot be opened"):
        Camera(87)
    assert capfd.readouterr() == ("", "")  # OpenCV writes to the file descriptors
    assert cv2.utils.logging.getLogLevel() == level


def test_command_saves_images_or_needs_a_display(root, semantic_model, folder, tmp_path):
    options = ("--input", folder / "a.png", folder / "b.jpg")
    run = {"cwd": root, "MPLBACKEND": "agg"}
    words = arguments(semantic_model, *options, "--output", tmp_path / "out")
    done = python("demo/demo.py", *words, **run)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == ["a_overlay.jpg", "b_overlay.jpg"]
    assert "images/s" in done.stderr
    shown = python("demo/demo.py", *arguments(semantic_model, *options), **run)
    assert shown.returncode == 1
    assert "no display" in shown.stderr and "Traceback" not in shown.stderr
