"""The whole page: complete, self-contained, and safe against the content of a run's files."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest

from eseg_d2.apps.report import build_report
from eseg_d2.apps.report.html import MAX_BYTES

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """Parses the tags, links and text of a page; fails on tags that do not match."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.links, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def require_self_contained(text: str, page: Page) -> None:
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert "@import" not in text and "url(" not in text
    assert page.count("script") == 1 and page.count("link") == page.count("iframe") == 0
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert len(text) < MAX_BYTES


def test_page_of_a_finished_run(make_run, tmp_path):
    run = make_run(tmp_path / "run", "rsp_panoptic_R18_cityscapes", "SOLVER.MAX_ITER", "3")
    text = build_report([run])
    page = Page(text)
    require_self_contained(text, page)
    for words in (
        *("finished, 3 iterations", "Worst", "Median", "Best", "PQ of the image"),
        *("predicted with model_final.pth", "Largest confusions", "car road 25.0 %"),
        *("images per second, median", "roi_heads", "total loss", "No versions were written"),
        f"Report on {tmp_path.name}/run",
    ):
        assert words in page.text, words
    assert page.count("img") == 3 * 4 + 1  # four panels of three images, and the viewer's image
    assert "Not in the truth, nor predicted: sky." in page.text
    scores = json.loads((run / "report_images/scores.json").read_text())
    assert len(scores["images"]) == 4 and scores["score"] == "PQ of the image"


def test_second_call_predicts_nothing(make_run, tmp_path, capfd):
    run = make_run(tmp_path / "run", "eseg_lite_s")
    first = build_report([run], images=3)
    assert "predictions of run" in capfd.readouterr().err
    assert build_report([run], images=3) == first
    assert "predictions of run" not in capfd.readouterr().err
    assert "3 images ranked by mIoU of the image" in Page(first).text


def test_two_runs_side_by_side(make_run, tmp_path):
    a = make_run(tmp_path / "a", "rsp_panoptic_R18_cityscapes", "SOLVER.MAX_ITER", "3")
    b = make_run(tmp_path / "b", "rsp_panoptic_R18_cityscapes", "SOLVER.BASE_LR", "0.5")
    (b / "results.json").write_text('{"panoptic_seg": {"PQ": 42.5}}')
    fingerprint = {"datasets": {"val": {"fingerprint": "1"}}}
    (a / "run.json").write_text(json.dumps(fingerprint))
    (b / "run.json").write_text(json.dumps(fingerprint).replace("1", "2"))
    text = build_report([a, b], images=2)
    page = Page(text)
    require_self_contained(text, page)
    assert "2 runs: a, b" in page.text
    assert re.search(r"PQ 40\.0 42\.5 \+2\.5", page.text)
    assert re.search(r"SOLVER\.BASE_LR [\d.]+ 0\.5", page.text)
    assert "prediction, a" in page.text and "errors, b" in page.text
    assert "other files under the same name of a data set: val" in page.text
    charts = [json.loads(a["data-samples"]) for _, a in page.tags if "data-samples" in a]
    assert {name for samples in charts for name, _ in samples} == {"a", "b"}


def test_earlier_runs_are_listed_with_the_difference(make_run, tmp_path):
    earlier = make_run(tmp_path / "earlier")
    (earlier / "events.out.tfevents.1000000000.host.1.0").touch()
    (earlier / "results.json").write_text('{"panoptic_seg": {"PQ": 45.0}}')
    run = tmp_path / "run"
    shutil.copytree(earlier, run)
    (run / "events.out.tfevents.1000000000.host.1.0").unlink()
    (run / "results.json").write_text('{"panoptic_seg": {"PQ": 40.0}}')
    assert re.search(
        r"earlier 2001-09-0\d .{,20}45\.0 −5\.0", Page(build_report([run], images=0)).text
    )


def test_page_of_an_incomplete_run_says_what_is_missing(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 0, "total_loss": 1.0}\n{"it')
    text = build_report([tmp_path])
    page = Page(text)
    for words in (
        *("config.yaml is not there", "broken line", "There are no metrics yet"),
        *("No confusion matrix was written", "its config.yaml is not one"),
    ):
        assert words in page.text, words


@pytest.mark.parametrize("lost", ["weights", "data"])
def test_without_weights_or_data_the_page_says_why_it_has_no_images(make_run, tmp_path, lost):
    run = make_run(tmp_path / "run")
    if lost == "weights":
        (run / "model_final.pth").unlink()
        (run / "last_checkpoint").unlink()
    else:
        config = (run / "config.yaml").read_text()
        config = config.replace("scenes_cityscapes_panoptic_val", "cityscapes_fine_panoptic_val")
        (run / "config.yaml").write_text(config)
    page = Page(build_report([run]))
    expected = {"weights": "holds no checkpoint", "data": "DETECTRON2_DATASETS"}[lost]
    assert "No images: run: " in page.text and expected in page.text
    assert "total loss" in page.text and page.count("img") == 1


def test_text_from_files_is_escaped(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    figures = {EVIL: {"PQ": 5.0}}
    (run / "inference/panoptic_quality.json").write_text(json.dumps(figures))
    results = {EVIL: {EVIL: 1.0}, "sem_seg": {f"IoU-{EVIL}": 3.0}}
    (run / "results.json").write_text(json.dumps(results))
    rows = [{"iteration": i, "total_loss": 1.0, f"loss{EVIL}": 1.0} for i in range(3)]
    (run / "metrics.json").write_text("\n".join(map(json.dumps, rows)))
    confusion = {"classes": [EVIL, "b"], "pixels": [[1, 2], [3, 4]]}
    (run / "inference/sem_seg_confusion.json").write_text(json.dumps(confusion))
    info = {
        "command": [EVIL], "git": {"commit": EVIL, "dirty": True}, "environment": {EVIL: EVIL},
        "starts": [{"time": EVIL, "iteration": EVIL, "world_size": EVIL}],
        "datasets": {EVIL: {"fingerprint": EVIL, "images": EVIL}},
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(info))
    (run / "log.txt").write_text(f"Exception during training:\n{EVIL}\n")
    other = Path(shutil.copytree(run, tmp_path / "<script>alert(1)<"))
    for runs in [run], [run, other]:
        text = build_report(runs, images=0)
        page = Page(text)
        require_self_contained(text, page)
        assert "<script>alert" not in text and "alert(1)" in page.text


def test_config_that_refers_to_another_file_is_not_followed(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "evil.yaml").write_text(f"A: !!python/object/apply:os.mkdir ['{tmp_path / 'x'}']\n")
    config = run / "config.yaml"
    config.write_text(f"_BASE_: {tmp_path / 'evil.yaml'}\n" + config.read_text())
    page = Page(build_report([run]))
    assert "its config.yaml is not one that a run has written" in page.text
    assert not (tmp_path / "x").exists()


def test_policy_allows_only_the_pages_own_script(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    text = build_report([tmp_path], images=0)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_matrix_of_many_classes_is_folded(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    count = 133
    pixels = [[1000 if i == j else int(i + 1 == j) for j in range(count)] for i in range(count)]
    confusion = {"classes": [f"class {i}" for i in range(count)], "pixels": pixels}
    (run / "inference/sem_seg_confusion.json").write_text(json.dumps(confusion))
    text = build_report([run], images=0)
    assert "Matrix of all 133 classes" in Page(text).text
    assert 'class="matrix"' not in text and len(text) < 1_000_000


def test_too_many_runs_and_missing_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 8"):
        build_report([tmp_path / str(i) for i in range(9)])
    with pytest.raises(FileNotFoundError, match="none.pth"):
        build_report([tmp_path], weights=tmp_path / "none.pth")
