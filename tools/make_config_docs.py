#!/usr/bin/env python3
"""Write docs/configs.md from the comments in eseg_d2/config/defaults.py."""

import argparse
import html
import inspect
import re
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from eseg_d2.config import defaults

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configs.md"
_KEY = re.compile(r"    cfg\.([A-Z0-9_.]+) = (.*)")
_SECTION = re.compile(r"def (_?add_\w+)\(")
_HEAD = """# Configuration keys

Made from the comments in [eseg_d2/config/defaults.py](../eseg_d2/config/defaults.py) by `python
tools/make_config_docs.py`. These keys are added to [Detectron2's
own](https://detectron2.readthedocs.io/en/latest/modules/config.html#config-references), which keep
their names, meanings and defaults. The keys of Detectron2's DeepLab project are added as well and
not listed here. Set keys in a YAML or as `KEY VALUE` at the end of a command.
"""
_TITLES = {
    "add_eseg_config": "Semantic loss",
    "_add_memory_format": "Memory format",
    "_add_gpu": "GPUs",
    "_add_bifpn": "BiFPN",
    "_add_efficientnet": "EfficientNet",
    "_add_rsp_head": "RSP head",
    "_add_rsp_pyramid": "RSP pyramid",
    "_add_eseg_head": "ESeg head",
    "_add_panoptic": "Panoptic models",
    "_add_data": "Data",
    "_add_training": "Training",
    "_add_launch": "Several processes",
    "_add_evaluation": "Evaluation",
    "_add_ema": "Moving average of the weights",
}


def format_config_page() -> str:
    """Return the page as Markdown: a section for each part of defaults.py, a row for each key.

    Raises:
        ValueError: a key has no comment, or a function has no title here.
    """
    cfg = get_cfg()
    defaults.add_eseg_config(cfg)
    sections: dict[str, list[str]] = {}
    title, comment = "", []
    in_comment = False
    for line in inspect.getsource(defaults).splitlines():
        if match := _SECTION.match(line):
            title, comment = _title(match[1]), []
        elif line.startswith("    # "):
            comment = [*comment, line[6:]] if in_comment else [line[6:]]
        elif (match := _KEY.match(line)) and match[2] != "CN()":
            sections.setdefault(title, []).append(_row(cfg, match[1], comment))
        in_comment = line.startswith("    # ")
    parts = [_HEAD]
    for name, rows in sections.items():
        parts.append(
            "\n".join([f"## {name}\n", "| key | default | meaning |", "|---|---|---|", *rows])
        )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _title(function: str) -> str:
    if function not in _TITLES:
        raise ValueError(f"defaults.py has the function {function}: give its section a title here")
    return _TITLES[function]


def _row(cfg: CfgNode, key: str, comment: list[str]) -> str:
    if not comment:
        raise ValueError(f"defaults.py: {key} has no comment")
    value = cfg
    for name in key.split("."):
        value = value[name]
    text = html.escape(" ".join(comment), quote=False).replace("|", "\\|")
    return f"| `{key}` | `{value!r}` | {text} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="default %(default)s")
    args = parser.parse_args()
    args.output.write_text(format_config_page())
    print(args.output)


if __name__ == "__main__":
    main()
