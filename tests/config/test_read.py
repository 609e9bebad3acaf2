"""Configs: where they are looked up, and one sentence that names the file if they are malformed."""

import os

import pytest
import yaml

from eseg_d2.config import find_config, load_config
from eseg_d2.config.read import read_config


def test_existing_file_is_preferred_to_the_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs/rsp_panoptic_R50.yaml"
    own.write_text("SEED: 1\n")
    assert find_config("configs/rsp_panoptic_R50.yaml") == "configs/rsp_panoptic_R50.yaml"
    assert find_config(str(own)) == str(own)


def test_files_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    for path in (root / "configs").rglob("*.yaml"):
        name = str(path.relative_to(root))
        with open(find_config(name)) as file:
            assert file.read() == path.read_text()


@pytest.mark.parametrize("name", ["rsp_panoptic_R50.yaml", "configs/none.yaml", "config/x.yaml"])
def test_missing_config_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no config file '{name}' in {tmp_path}"):
        find_config(name)


CONFIG = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"
OWN = "DATASETS: {PANOPTIC: [{name: %s, images: b, panoptic_png: c, panoptic_json: %s}]}"


@pytest.fixture
def config(root, tmp_path):
    """Return a function that writes a config based on a valid one and returns its path."""

    def write(content, base=f"_BASE_: {root / CONFIG}\n"):
        (tmp_path / "config.yaml").write_text(base + content)
        return str(tmp_path / "config.yaml")

    return write


def multiplied(level):
    """Return 40 mappings, each of which holds the one before it twice."""
    levels = [f"a{i}: &a{i} {level.replace('*a', f'*a{i - 1}')}" for i in range(1, 40)]
    return "\n".join(["a0: &a0 {x: 1, y: 2}", *levels])


@pytest.mark.parametrize("level", ["{x: *a, y: *a}", "[*a, *a]", "{<<: [*a, *a]}"])
def test_aliases_that_multiply_are_refused(config, level):
    with pytest.raises(ValueError, match="config.yaml is not valid yaml: its aliases multiply"):
        load_config(config(multiplied(level)), [])


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("DATASETS:\n  TEST:", "DATASETS.TEST is None"),
        ("DATASETS: {TRAIN: null}", "DATASETS.TRAIN is None"),
        ("DATASETS: {TRAIN: [null]}", "DATASETS.TRAIN is"),
        ("DATASETS: {TRAIN: [{a: 1}]}", "DATASETS.TRAIN is"),
        ("DATASETS: {TEST: [3]}", "DATASETS.TEST is .3,.; expected names"),
        ("DATASETS: {TEST: [[a]]}", "DATASETS.TEST is"),
        ("DATASETS: {TEST: a}", "DATASETS.TEST"),
        ("DATASETS: {PANOPTIC: {}}", "DATASETS.PANOPTIC"),
        ("DATASETS: {PANOPTIC: null}", "DATASETS.PANOPTIC is None"),
        ("DATASETS: {PANOPTIC: [null]}", "DATASETS.PANOPTIC"),
        (OWN % ("a", "null"), "DATASETS.PANOPTIC has the entry"),
        (OWN % ("a", 3), "DATASETS.PANOPTIC has the entry"),
        (OWN % ("[a]", "[b]"), "DATASETS.PANOPTIC has the entry"),
        ("DATASETS: 3", "DATASETS"),
        ("MODEL: null", "MODEL"),
        ("MODEL: {WEIGHTS: null}", "MODEL.WEIGHTS is None"),
        ("SOLVER: {STEPS: [null]}", "SOLVER.STEPS is"),
        ("INPUT: {MIN_SIZE_TRAIN: [a]}", "INPUT.MIN_SIZE_TRAIN is .'a',.*default, .800"),
        ("OUTPUT_DIR: null", "OUTPUT_DIR is None"),
        ("VERSION: null", "VERSION"),
        ("OUTPUT_DIR: '%s'" % ("-" * 100_000), "2048 characters"),
        ("SEED: %s1" % ("1:" * 100_000), "2048 characters"),
        ("OUTPUT_DIR: %s" % ("[" * 100_000), "recursion"),
        ("OUTPUT_DIR: &a [*a]", "within itself"),
        ("SEED: !!int ''", "not valid yaml"),
        ("MODEL: [", "not valid yaml"),
        ("MODEL: {RSP_HEAD: {CHANELS: 3}}", "CHANELS.*Did you mean MODEL.RSP_HEAD.CHANNELS"),
        ("MODEL: {EFFICIENTNET: {PRETRAINED: timm}}", "PRETRAINED.*timm://NAME.TAG"),
    ],
)
def test_invalid_values_are_named(config, content, key):
    with pytest.raises(ValueError, match=f"(?s)config.yaml(:| is) .*{key}"):
        load_config(config(content), [])


RANGE = ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(64,)")


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["DATASETS.TEST", "None"], "overrides.*DATASETS.TEST is"),
        (["DATASETS.TEST", "(3,)"], "overrides.*DATASETS.TEST is"),
        (["DATASETS.TEST", "(None,)"], "overrides.*DATASETS.TEST is"),
        (["SOLVER.BASE_LRR", "1"], "SOLVER.BASE_LRR.*Did you mean .*SOLVER.BASE_LR"),
        (["SOLVER.MAX_ITER"], "overrides"),
        (["SOLVER.MAX_ITER", "many"], "overrides.*MAX_ITER"),
        (RANGE, r"MIN_SIZE_TRAIN is \(64,\).*smallest and the largest"),
        (["MODEL.PANOPTIC.SEMANTIC_CLASSES", "every"], "SEMANTIC_CLASSES is 'every'"),
    ],
)
def test_invalid_overrides_are_named(config, overrides, match):
    with pytest.raises(ValueError, match=match):
        load_config(config(""), overrides)


@pytest.mark.parametrize(
    ("base", "match"),
    [
        ("null", "_BASE_ is None; expected a file"),
        ("3", "_BASE_ is 3"),
        ("[null]", "_BASE_ is"),
        ("{a: b}", "_BASE_ is"),
        (".", "is a folder"),
        ("config.yaml", "config.yaml is its own _BASE_"),
        ("other.yaml", "is its own _BASE_"),
        ("gone.yaml", "gone.yaml"),
        ("[twice.yaml, twice.yaml]", "more than 50"),
        ("pipe.yaml", "pipe.yaml is a device or pipe"),
        ("zero.yaml", "zero.yaml is a device or pipe"),
    ],
)
def test_invalid_bases_are_named(config, tmp_path, base, match):
    (tmp_path / "other.yaml").write_text("_BASE_: config.yaml")
    (tmp_path / "twice.yaml").write_text("_BASE_: [twice.yaml, twice.yaml]")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises((ValueError, FileNotFoundError), match=f"{tmp_path}.*{match}"):
        load_config(config(f"_BASE_: {base}\n", base=""), [])


@pytest.mark.parametrize("content", ["text", "[1, 2]", "", "3", "\0"])
def test_files_that_are_not_configs_are_named(config, content):
    with pytest.raises(ValueError, match="config.yaml"):
        load_config(config(content, base=""), [])


def test_valid_config_is_read_and_survives_a_dump(config, tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {MAX_ITER: 5}\nSEED: 3")
    path = config(
        "_BASE_: [base.yaml]\nSOLVER: &a {STEPS: [1, 2], WEIGHT_DECAY_BIAS: null}\n"
        "INPUT: {MIN_SIZE_TRAIN: &sizes [64, 96], MIN_SIZE_TEST: 64}",
        base="",
    )
    cfg = load_config(path, [])
    assert cfg.SEED == 3 and cfg.SOLVER.MAX_ITER == 5 and cfg.INPUT.MIN_SIZE_TRAIN == (64, 96)
    assert cfg.SOLVER.STEPS == (1, 2) and cfg.SOLVER.WEIGHT_DECAY_BIAS is None
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    again = load_config(str(tmp_path / "dumped.yaml"), [])
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


HARMFUL = [
    '!!python/object/apply:os.mkdir ["{canary}"]',
    '!!python/object/new:os.mkdir ["{canary}"]',
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/object/apply:eval [\"__import__('os').mkdir('{canary}')\"]",
]


@pytest.mark.parametrize("tag", HARMFUL)
@pytest.mark.parametrize("in_base", [False, True])
def test_configs_run_no_code(tmp_path, tag, in_base):
    canary = tmp_path / "canary"
    files = [tmp_path / "config.yaml"]
    if in_base:
        files.append(tmp_path / "base.yaml")
        files[0].write_text("_BASE_: base.yaml\nSEED: 1\n")
    files[-1].write_text("OUTPUT_DIR: " + tag.format(canary=canary) + "\n")
    with pytest.raises(ValueError, match=f"{files[-1].name} is not valid yaml: .*python/"):
        load_config(str(files[0]), [])
    assert not canary.exists()


@pytest.mark.parametrize("tag", HARMFUL)
def test_overrides_run_no_code(tmp_path, tag):
    canary = tmp_path / "canary"
    value = tag.format(canary=canary)
    assert value == load_config(CONFIG, ["OUTPUT_DIR", value]).OUTPUT_DIR
    value = f"__import__('os').mkdir({str(canary)!r})"
    assert value == load_config(CONFIG, ["OUTPUT_DIR", value]).OUTPUT_DIR
    assert not canary.exists()


def test_origin_of_each_given_key_is_reported(tmp_path):
    base, config = tmp_path / "base.yaml", tmp_path / "config.yaml"
    base.write_text("SEED: 1\nSOLVER: {MAX_ITER: 5, BASE_LR: 0.1}\n")
    config.write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 6}\n")
    cfg, given = read_config(str(config), ["SOLVER.BASE_LR", "0.2"])
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (1, 6, 0.2)
    assert given["SEED"] == str(base) and given["SOLVER.MAX_ITER"] == str(config)
    assert given["SOLVER.BASE_LR"] == "the overrides"
    assert "SOLVER.MOMENTUM" not in given
