"""Generated data sets, read with the usual tools for Cityscapes and COCO."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from panoptic_files import check_segments, contents
from PIL import Image

from eseg_d2.apps.scenes import generate_street_scenes, render_scene
from eseg_d2.apps.scenes.labels import CATEGORIES, LABELS

SIZE = (128, 256)
COUNTS = {"num_train": 7, "num_val": 5}


def _make(output, format, **changes):
    arguments = {**COUNTS, "format": format, "size": SIZE, "seed": 0, "workers": 2, **changes}
    return generate_street_scenes(output, **arguments)


def _ids(png):
    return np.asarray(Image.open(png)) @ np.array([1, 256, 65536])


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "cityscapes"
    assert _make(root, "cityscapes")
    return root


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "coco"
    assert _make(root, "coco")
    return root


@pytest.fixture(params=["cityscapes", "coco"])
def made(request):
    return request.param, request.getfixturevalue(request.param)


def _split_of(root, split):
    return str(root / "leftImg8bit" / split), str(root / "gtFine" / split)


def test_same_arguments_give_the_same_bytes_for_any_number_of_workers(made, tmp_path):
    format, root = made
    assert _make(tmp_path / "again", format, workers=1)
    assert contents(tmp_path / "again") == contents(root)


def test_another_seed_gives_different_images(made, tmp_path):
    format, root = made
    assert _make(tmp_path / "other", format, seed=1)
    theirs, ours = contents(tmp_path / "other"), contents(root)
    assert theirs.keys() == ours.keys()
    pictures = [name for name in ours if name.endswith((".jpg", "leftImg8bit.png"))]
    assert len(pictures) == sum(COUNTS.values())
    assert all(theirs[name] != ours[name] for name in pictures)


def test_more_images_leave_the_first_ones_unchanged(coco, tmp_path):
    assert _make(tmp_path / "more", "coco", num_train=8)
    more, fewer = contents(tmp_path / "more"), contents(coco)
    assert all(more[name] == fewer[name] for name in fewer if name.endswith((".jpg", ".png")))


def test_train_and_val_are_different_scenes(coco):
    pictures = [data for name, data in contents(coco).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == sum(COUNTS.values())


def test_finished_data_set_is_left_alone(made):
    format, root = made
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert not _make(root, format, workers=1)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def test_data_set_made_with_other_arguments_is_refused(coco):
    with pytest.raises(FileExistsError, match="seed 0 instead of 3"):
        _make(coco, "coco", seed=3)
    with pytest.raises(FileExistsError, match="format coco instead of cityscapes"):
        _make(coco, "cityscapes")


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        _make(tmp_path, "coco")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("stop_at", [3, 9])
def test_interrupted_run_looks_unfinished_and_the_next_one_completes(
    made, tmp_path, stop_at, monkeypatch
):
    format, root = made
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return render_scene(*args)

    output = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("eseg_d2.apps.scenes.generate.render_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _make(output, format, workers=1)
    assert [p.name for p in output.iterdir() if not p.name.startswith(".")] == []
    assert _make(output, format)
    assert contents(output) == contents(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 0}, "num_train is 0"),
        ({"num_val": -2}, "num_val is -2"),
        ({"size": (10, 256)}, "size is 10x256, expected"),
        ({"size": (128, 99999)}, "size is 128x99999, expected"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"format": "voc"}, "format is 'voc', expected one of cityscapes, coco"),
    ],
)
def test_invalid_argument_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _make(tmp_path / "out", **{"format": "coco", **changes})
    assert not (tmp_path / "out").exists()


def test_both_formats_hold_the_same_scenes(cityscapes, coco):
    instance_files = sorted((cityscapes / "gtFine" / "val").rglob("*_instanceIds.png"))
    theirs = {cv2.imread(str(p), cv2.IMREAD_UNCHANGED).tobytes() for p in instance_files}
    void = [label.id for label in LABELS.values() if label.trainId == 255]
    for index in range(COUNTS["num_val"]):
        scene = render_scene(np.random.SeedSequence((0, 1, index)), *SIZE)
        assert scene.instance_ids.tobytes() in theirs
        ids = _ids(coco / "panoptic_val2017" / f"{1_000_001 + index:012d}.png")
        expected = np.where(np.isin(scene.instance_ids, void), 0, scene.instance_ids)
        assert np.array_equal(ids, expected)


def test_coco_panoptic_files_agree_with_each_other(coco):
    content = json.loads((coco / "annotations" / "panoptic_train2017.json").read_text())
    assert [c["id"] for c in content["categories"]] == [c.id for c in CATEGORIES]
    things = {c["id"] for c in content["categories"] if c["isthing"]}
    assert [i["id"] for i in content["images"]] == [a["image_id"] for a in content["annotations"]]
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        with Image.open(coco / "train2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == SIZE[::-1]
        segments = annotation["segments_info"]
        check_segments(_ids(coco / "panoptic_train2017" / annotation["file_name"]), segments)
        assert {s["category_id"] for s in segments if s["iscrowd"]} <= things


def test_detectron2_loads_coco(coco):
    from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json

    meta = {
        f"{kind}_dataset_id_to_contiguous_id": {
            c.id: i for i, c in enumerate(CATEGORIES) if c.hasInstances == (kind == "thing")
        }
        for kind in ("thing", "stuff")
    }
    loaded = load_coco_panoptic_json(
        str(coco / "annotations" / "panoptic_val2017.json"),
        str(coco / "val2017"),
        str(coco / "panoptic_val2017"),
        meta,
    )
    assert len(loaded) == COUNTS["num_val"]
    assert all(Path(entry["file_name"]).is_file() for entry in loaded)


def test_train_and_val_have_different_towns(cityscapes):
    towns = [
        {p.name for p in (cityscapes / "leftImg8bit" / split).iterdir()}
        for split in ("train", "val")
    ]
    assert all(towns) and not towns[0] & towns[1]


def test_detectron2_loads_cityscapes_panoptic(cityscapes):
    from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
    from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic

    meta = {
        f"{kind}_dataset_id_to_contiguous_id": {
            k["id"]: k["trainId"]
            for k in CITYSCAPES_CATEGORIES
            if k["isthing"] == (kind == "thing")
        }
        for kind in ("thing", "stuff")
    }
    gt = cityscapes / "gtFine"
    for split in ("train", "val"):
        loaded = load_cityscapes_panoptic(
            str(cityscapes / "leftImg8bit" / split),
            str(gt / f"cityscapes_panoptic_{split}"),
            str(gt / f"cityscapes_panoptic_{split}.json"),
            meta,
        )
        assert len(loaded) == COUNTS[f"num_{split}"]
        for entry in loaded:
            train_ids = np.asarray(Image.open(entry["sem_seg_file_name"]))
            ids = _ids(entry["pan_seg_file_name"])
            assert np.array_equal(ids == 0, train_ids == 255)
            for segment in entry["segments_info"]:
                assert (train_ids[ids == segment["id"]] == segment["category_id"]).all()


@pytest.mark.parametrize("from_json", [True, False])
def test_detectron2_loads_cityscapes_instances(cityscapes, from_json):
    if from_json:
        pytest.importorskip("shapely", reason="Detectron2 reads polygon files with it")
    from detectron2.data.datasets.cityscapes import load_cityscapes_instances

    loaded = load_cityscapes_instances(*_split_of(cityscapes, "val"), from_json=from_json)
    assert len(loaded) == COUNTS["num_val"]
    assert sum(len(entry["annotations"]) for entry in loaded) > 10


def test_detectron2_loads_cityscapes_semantic(cityscapes):
    from detectron2.data.datasets.cityscapes import load_cityscapes_semantic

    loaded = load_cityscapes_semantic(*_split_of(cityscapes, "train"))
    assert len(loaded) == COUNTS["num_train"]
    assert (loaded[0]["height"], loaded[0]["width"]) == SIZE


@pytest.fixture
def numpy_with_in1d(monkeypatch):
    """Provide np.in1d, which cityscapesscripts 2.3.0 calls and NumPy 2.4 no longer has."""
    monkeypatch.setattr(np, "in1d", getattr(np, "in1d", np.isin), raising=False)


def test_ground_truth_is_perfect_in_cityscapes_pixel_level_evaluation(cityscapes, numpy_with_in1d):
    import cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling as evaluation

    truth = sorted(str(p) for p in (cityscapes / "gtFine" / "val").rglob("*_labelIds.png"))
    evaluation.args.JSONOutput, evaluation.args.quiet = False, True
    results = evaluation.evaluateImgLists(truth, truth, evaluation.args)
    assert results["averageScoreClasses"] == results["averageScoreInstClasses"] == 1.0
    assert results["classScores"]["traffic sign"] == 1.0


def test_ground_truth_is_perfect_in_cityscapes_instance_level_evaluation(
    cityscapes, numpy_with_in1d, tmp_path, monkeypatch
):
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as evaluation

    # It writes matches.json into the current folder, which fails with NumPy 2.4's integers
    monkeypatch.setattr(evaluation, "writeDict2JSON", lambda *_: None)
    truth, predictions = [], []
    for path in sorted((cityscapes / "gtFine" / "val").rglob("*_instanceIds.png")):
        ids = np.asarray(Image.open(path))
        lines = []
        for number in np.unique(ids[ids >= 1000]):
            mask = tmp_path / f"{path.stem}_{number}.png"
            Image.fromarray((ids == number).astype(np.uint8) * 255).save(mask)
            lines.append(f"{mask.name} {number // 1000} 1.0\n")
        prediction = tmp_path / f"{path.stem}.txt"
        prediction.write_text("".join(lines))
        truth.append(str(path))
        predictions.append(str(prediction))
    args = evaluation.args
    args.JSONOutput, args.quiet, args.predictionPath = False, True, str(tmp_path)
    args.gtInstancesFile = str(tmp_path / "instances.json")
    results = evaluation.evaluateImgLists(predictions, truth, args)["averages"]
    assert results["allAp"] == pytest.approx(1.0)
    assert results["classes"]["car"]["ap"] == pytest.approx(1.0)


def test_ground_truth_is_perfect_in_cityscapes_panoptic_evaluation(cityscapes, tmp_path):
    from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import evaluatePanoptic

    folder = str(cityscapes / "gtFine" / "cityscapes_panoptic_val")
    output = str(tmp_path / "pq.json")
    results = evaluatePanoptic(f"{folder}.json", folder, f"{folder}.json", folder, output)
    found = [c for c in results["per_class"].values() if c["pq"] > 0]
    assert len(found) >= 11
    assert all(c["pq"] == pytest.approx(1.0) for c in found)
