"""README and docs: commands parse, named files exist, code runs."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / name / "README.md" for name in (".", "datasets", "weights")]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
SCENES = "configs/scenes/rsp_panoptic_R18_cityscapes.yaml"
# Words that the reader replaces
PLACEHOLDERS = {
    "CONFIG": SCENES,
    "A": SCENES,
    "B": SCENES,
    "C": SCENES,
    "FILE": SCENES,
    "ROW": "3",
    "COLUMN": "4",
    "IMAGE": "image.png",
    "SEED": "1",
    "HxW": "64x128",
    "N": "2",
    "NAME": "scenes_cityscapes_panoptic_val",
}
STARTERS = r"(?:(?:\.venv/bin/)?python3? |torchrun |srun |make |pip install )"


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page, from fenced and indented blocks and from inline code."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in rest.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`([^`]+)`", rest)
    found = [" ".join(line.removeprefix("$ ").split()) for line in lines]
    return list(dict.fromkeys(line for line in found if re.match(STARTERS, line)))


ALL = [(page, command) for page in PAGES for command in commands_of(page)]
IDS = [f"{page.name}: {command[:60]}" for page, command in ALL]


def words_of(command: str) -> list[str]:
    """Split a command into words from its script on, if it has one, and fill in placeholders."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command, comments=True)]
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    return words[scripts[0] :] if scripts else words


def test_commands_are_found_on_the_main_pages():
    assert len(ALL) > 40
    for name in "README.md", "train.md", "data.md", "predict.md", "report.md", "deploy.md":
        assert any(page.name == name for page, _ in ALL), name


class ParsedError(Exception):
    """Raised in place of running a command whose arguments were accepted."""


def check_script(words: list[str], monkeypatch) -> argparse.Namespace:
    """Check that a script's own parser accepts the words, without running the script."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise ParsedError(parse(self, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [str(ROOT / Path(words[0]).parent), *sys.path])
    with pytest.raises(ParsedError) as parsed:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    return parsed.value.args[0]


@pytest.mark.parametrize("page, command", ALL, ids=IDS)
def test_commands_are_accepted(page, command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = words_of(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in words[1:2] if "=" not in word} <= set(targets)
    elif words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file()
        args = check_script(words, monkeypatch)
        check_config(args)
    elif words[:2] == ["pip", "install"]:
        check_extras(words[2:])
    else:
        assert words[0] in ("python", "python3", "srun", "torchrun"), command


def check_config(args: argparse.Namespace) -> None:
    """Check that the config files exist and accept the overrides."""
    from eseg_d2.engine import merge_config

    files = getattr(args, "config_file", None) or []
    for file in [files] if isinstance(files, str | Path) else files:
        if str(file).startswith("configs/"):
            merge_config(str(file), list(getattr(args, "opts", None) or []))


def check_extras(words: list[str]) -> None:
    source = (ROOT / "pyproject.toml").read_text()
    for word in words:
        for extra in re.findall(r"\.\[([\w,]+)\]", word):
            assert all(re.search(rf"^{name} = \[", source, re.M) for name in extra.split(","))


def test_installs_from_the_checkout_are_editable():
    """Without -e, pip would replace the editable installation with a copy."""
    files = [*PAGES, ROOT / "Makefile", *(ROOT / "eseg_d2").rglob("*.py")]
    from_here = [
        line
        for file in files
        for line in file.read_text().splitlines()
        if "install" in line and re.search(r"'\.\[\w+\]'", line)
    ]
    assert len(from_here) > 6
    assert all("-e '.[" in line for line in from_here), from_here


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_point_to_existing_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_index_lists_every_page():
    linked = set(re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs/index.md").read_text()))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_named_files_exist(page):
    pattern = r"(?<![\w/.])((?:eseg_d2|configs|tools|demo|datasets|docs)/[\w/.-]*\.(?:py|yaml|md))"
    for name in re.findall(pattern, page.read_text()):
        assert (ROOT / name).exists(), name


def test_head_of_the_docs_trains_in_semantic_and_panoptic_models(scenes):
    from detectron2.utils.events import EventStorage

    from eseg_d2.engine import Trainer, load_config

    text = (ROOT / "docs" / "extending.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    assert len(code.splitlines()) <= 30
    exec(compile(code, "docs/extending.md", "exec"), {"__name__": "extending"})
    options = ["MODEL.SEM_SEG_HEAD.NAME", "PlainHead", "MODEL.DEVICE", "cpu"]
    options += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "DATALOADER.NUM_WORKERS", "0"]
    for config in "rsp_semantic_R50", "rsp_panoptic_R18_cityscapes":
        cfg = load_config(str(ROOT / f"configs/scenes/{config}.yaml"), options)
        model = Trainer.build_model(cfg).train()
        batch = next(iter(Trainer.build_train_loader(cfg)))
        with EventStorage():  # the RPN logs to it
            sum(model(batch).values()).backward()
        assert model.sem_seg_head.predictor.weight.grad.abs().sum() > 0
        output = model.eval()([{"image": batch[0]["image"], "height": 64, "width": 128}])
        assert output[0]["sem_seg"].shape == (19, 64, 128)
