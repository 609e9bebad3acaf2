"""Panoptic quality against brute force, cityscapesscripts and Detectron2's evaluator."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import evaluate_perfect
from PIL import Image

import eseg_d2  # noqa: F401, registers
from eseg_d2.data.datasets.panoptic_format import metadata_from_categories, register_panoptic
from eseg_d2.data.panoptic_png import segment_id_to_rgb
from eseg_d2.evaluation.ground_truth import GroundTruth
from eseg_d2.evaluation.panoptic_quality import (
    PanopticQualityEvaluator,
    PanopticStatistics,
    count_pairs,
    summarize,
)
from eseg_d2.structures.label_space import LabelSpace

CATEGORIES = [
    {"id": 50, "name": "sky", "isthing": 0},
    {"id": 7, "name": "car", "isthing": 1},
    {"id": 300, "name": "grass", "isthing": 0},
    {"id": 8, "name": "cat", "isthing": 1},
]
SPACE = LabelSpace(
    names=tuple(c["name"] for c in CATEGORIES),
    dataset_ids=tuple(c["id"] for c in CATEGORIES),
    thing_ids=(1, 3),
)


def brute_force(images):
    """Apply panopticapi's rules with sets of pixels; return {class: [iou sum, tp, fp, fn]}."""
    sums = {c: [0.0, 0, 0, 0] for c in range(len(CATEGORIES))}
    for truth, truth_segments, prediction, predicted_segments in images:
        truth_sets = [set(np.flatnonzero(truth == i)) for i in range(len(truth_segments))]
        predicted = [set(np.flatnonzero(prediction == j)) for j in range(len(predicted_segments))]
        void = set(np.flatnonzero(truth == len(truth_segments)))
        matched_truth, matched_prediction = set(), set()
        for i, t in enumerate(truth_segments):
            for j, p in enumerate(predicted_segments):
                if t["iscrowd"] or t["category_id"] != p["category_id"]:
                    continue
                inter = len(truth_sets[i] & predicted[j])
                union = len(truth_sets[i]) + len(predicted[j]) - inter - len(void & predicted[j])
                if inter and inter / union > 0.5:
                    sums[t["category_id"]][0] += inter / union
                    sums[t["category_id"]][1] += 1
                    matched_truth.add(i)
                    matched_prediction.add(j)
        last_crowd = {}
        for i, t in enumerate(truth_segments):
            if t["iscrowd"]:
                last_crowd[t["category_id"]] = truth_sets[i]
            elif i not in matched_truth:
                sums[t["category_id"]][3] += 1
        for j, p in enumerate(predicted_segments):
            if j in matched_prediction:
                continue
            forgiven = void | last_crowd.get(p["category_id"], set())
            if len(predicted[j] & forgiven) / len(predicted[j]) <= 0.5:
                sums[p["category_id"]][2] += 1
    return sums


def random_map(rng, shape, num_segments):
    """Draw a map of segment indices in noisy blocks; the last index is void."""
    coarse = rng.integers(0, num_segments + 1, (max(shape[0] // 4, 1), max(shape[1] // 4, 1)))
    index = np.kron(coarse, np.ones((4, 4), int))[: shape[0], : shape[1]]
    noise = rng.random(index.shape) < 0.05
    index[noise] = rng.integers(0, num_segments + 1, noise.sum())
    return index


def compact(index, num_segments):
    """Renumber the segments that have pixels; return the map and their old indices."""
    used = [i for i in range(num_segments) if (index == i).any()]
    table = np.full(num_segments + 1, len(used))
    table[used] = np.arange(len(used))
    return table[index], used


def random_image(rng):
    shape = (int(rng.integers(4, 40)), int(rng.integers(4, 40)))
    n = int(rng.integers(0, 9))
    truth = random_map(rng, shape, n)
    prediction = np.where(rng.random(truth.shape) < 0.85, truth, random_map(rng, shape, n))
    classes = rng.integers(0, 4, n)
    crowd = (rng.random(n) < 0.3) & np.isin(classes, SPACE.thing_ids)
    truth, used = compact(truth, n)
    truth_segments = [
        {"category_id": int(classes[i]), "iscrowd": int(crowd[i]), "id": k + 1}
        for k, i in enumerate(used)
    ]
    swapped = np.where(rng.random(n) < 0.2, rng.integers(0, 4, n), classes)
    prediction, used = compact(prediction, n)
    predicted = [{"category_id": int(swapped[i]), "id": k + 1} for k, i in enumerate(used)]
    return truth, truth_segments, prediction, predicted


def add(statistics, truth, truth_segments, prediction, predicted):
    truth, prediction = to_ids(truth, truth_segments), to_ids(prediction, predicted)
    pairs = count_pairs(truth, truth_segments, "truth", prediction, predicted, "prediction")
    statistics.add_image(pairs, truth_segments, predicted)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_statistics_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(3)]
    statistics = PanopticStatistics(4)
    for image in images:
        add(statistics, *image)
    for c, (iou, tp, fp, fn) in brute_force(images).items():
        assert (statistics.tp[c], statistics.fp[c], statistics.fn[c]) == (tp, fp, fn)
        assert statistics.iou[c] == pytest.approx(iou, abs=1e-10)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_sums_do_not_depend_on_the_number_of_processes(seed, processes):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(8)]
    whole, merged = PanopticStatistics(4), PanopticStatistics(4)
    for image in images:
        add(whole, *image)
    for rank in range(processes):
        share = PanopticStatistics(4)
        for image in images[rank::processes]:
            add(share, *image)
        merged += share
    assert (merged.iou == whole.iou).all() and (merged.tp == whole.tp).all()


def to_ids(index, segments):
    """Convert a map of segment indices to one of segment ids."""
    return np.append([s["id"] for s in segments], 0)[index].astype(np.int64)


def to_png(path, index, segments):
    Image.fromarray(segment_id_to_rgb(to_ids(index, segments))).save(path)


def with_dataset_ids(segments):
    return [{**s, "category_id": CATEGORIES[s["category_id"]]["id"]} for s in segments]


@pytest.fixture
def data_set(tmp_path):
    """Register twelve random images; yield the folder, the json and the images with predictions."""
    rng = np.random.default_rng(7)
    images = [random_image(rng) for _ in range(12)]
    content = {"images": [], "annotations": [], "categories": CATEGORIES}
    for i, (truth, segments, _, _) in enumerate(images):
        to_png(tmp_path / f"{i}.png", truth, segments)
        height, width = truth.shape
        size = {"height": height, "width": width}
        content["images"].append({"id": i, "file_name": f"{i}.jpg", **size})
        listed = [
            {**s, "area": int((truth == k).sum())} for k, s in enumerate(with_dataset_ids(segments))
        ]
        content["annotations"].append(
            {"image_id": i, "file_name": f"{i}.png", "segments_info": listed}
        )
    (tmp_path / "truth.json").write_text(json.dumps(content))
    register_panoptic(
        "test_pq",
        image_root=str(tmp_path),
        panoptic_root=str(tmp_path),
        panoptic_json=str(tmp_path / "truth.json"),
        metadata=metadata_from_categories(CATEGORIES),
    )
    yield tmp_path, content, images
    DatasetCatalog.remove("test_pq")
    MetadataCatalog.remove("test_pq")


def outputs_of(images):
    for _, _, prediction, segments in images:
        yield {"panoptic_seg": (to_ids(prediction, segments), segments)}


def inputs_of(images, folder):
    return [{"file_name": str(folder / f"{i}.jpg")} for i in range(len(images))]


def test_evaluator_equals_cityscapesscripts(data_set, monkeypatch):
    from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official

    folder, content, images = data_set
    evaluator = PanopticQualityEvaluator("test_pq", output_dir=str(folder / "out"))
    evaluator.process(inputs_of(images, folder), list(outputs_of(images)))
    ours = evaluator.evaluate()["panoptic_seg"]

    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    (folder / "predicted").mkdir()
    pairs = []
    for i, (_, _, prediction, segments) in enumerate(images):
        to_png(folder / "predicted" / f"{i}.png", prediction, segments)
        listed = with_dataset_ids(segments)
        predicted = {"image_id": i, "file_name": f"{i}.png", "segments_info": listed}
        pairs.append((content["annotations"][i], predicted))
    categories = {c["id"]: c for c in CATEGORIES}
    with contextlib.redirect_stdout(io.StringIO()):
        stat = official.pq_compute_single_core(
            0, pairs, str(folder), str(folder / "predicted"), categories
        )
    for suffix, isthing in ("", None), ("_th", True), ("_st", False):
        theirs, _ = stat.pq_average(categories, isthing)
        for ours_name, name in ("PQ", "pq"), ("SQ", "sq"), ("RQ", "rq"):
            assert ours[ours_name + suffix] == pytest.approx(100 * theirs[name], abs=1e-9)
    saved = json.loads((folder / "out" / "panoptic_quality.json").read_text())
    _, per_class = stat.pq_average(categories, None)
    for category in CATEGORIES:
        expected = 100 * per_class[category["id"]]["pq"]
        assert saved[category["name"]]["PQ"] == pytest.approx(expected, abs=1e-9)


def test_perfect_predictions_score_100(scenes):
    for kind in "cityscapes", "coco":
        name = f"scenes_{kind}_panoptic_val"
        results = evaluate_perfect(PanopticQualityEvaluator(name), GroundTruth(name))
        results = results["panoptic_seg"]
        assert results == dict.fromkeys(results, 100.0) and len(results) == 9


def test_inconsistent_predictions_are_refused(data_set):
    folder, _, images = data_set
    evaluator = PanopticQualityEvaluator("test_pq")
    chosen = next(i for i, image in enumerate(images) if len(image[3]) > 1)
    name = {"file_name": str(folder / f"{chosen}.jpg")}
    good, segments = list(outputs_of(images))[chosen]["panoptic_seg"]

    def refused(segment_map, info, message):
        with pytest.raises(ValueError, match=message) as error:
            evaluator.process([name], [{"panoptic_seg": (segment_map, info)}])
        assert f"{chosen}.jpg" in str(error.value)

    refused(good[1:], segments, "size")
    refused(good, segments[1:], re.escape(f"[{segments[0]['id']}]"))
    refused(good, [*segments, {"id": 99, "category_id": 0}], r"\[99\].*no pixel")
    refused(good, [*segments, segments[0]], "several segments")
    refused(good, [{**segments[0], "category_id": 4}, *segments[1:]], r"category ids \[4\]")
    refused(good, None, "no segments_info")


def test_averages_over_no_class_are_nan():
    statistics = PanopticStatistics(4)
    add(
        statistics,
        *(np.zeros((2, 2), int), [{"id": 5, "category_id": 0, "iscrowd": 0}]),
        *(np.zeros((2, 2), int), [{"id": 9, "category_id": 0}]),
    )
    results, per_class = summarize(statistics, SPACE)
    assert results["PQ"] == results["PQ_st"] == 100
    assert np.isnan(results["PQ_th"])
    assert list(per_class) == ["sky"]


@pytest.mark.parametrize("kind", ["cityscapes", "coco"])
def test_evaluator_equals_that_of_detectron2(scenes, root, monkeypatch, kind):
    """COCOPanopticEvaluator imports panopticapi, which is replaced by tests/stand_ins."""
    from detectron2.evaluation import COCOPanopticEvaluator

    monkeypatch.syspath_prepend(root / "tests" / "stand_ins")
    name = f"scenes_{kind}_panoptic_val"

    def imperfect(output):
        segment_map, segments = output["panoptic_seg"]
        segment_map[:, ::5] = segments[0]["id"]
        return output

    theirs, ours = (
        evaluate_perfect(evaluator, GroundTruth(name), imperfect)["panoptic_seg"]
        for evaluator in (COCOPanopticEvaluator(name), PanopticQualityEvaluator(name))
    )
    assert 20 < theirs["PQ"] < 90
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-9)
