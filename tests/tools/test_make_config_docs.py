"""docs/configs.md and the tool that generates it."""

import re
import runpy
from pathlib import Path

from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config

from eseg_d2 import add_eseg_config
from eseg_d2.config import all_keys

TOOL = Path(__file__).parents[2] / "tools/make_config_docs.py"
format_config_page = runpy.run_path(str(TOOL))["format_config_page"]


def test_page_is_up_to_date_with_the_comments(root):
    page = (root / "docs" / "configs.md").read_text()
    assert page == format_config_page(), "run python tools/make_config_docs.py"


def test_page_lists_every_key_once():
    theirs, ours = get_cfg(), get_cfg()
    add_deeplab_config(theirs)
    add_eseg_config(ours)
    nodes = {key.rpartition(".")[0] for key in all_keys(ours)}
    added = set(all_keys(ours)) - set(all_keys(theirs)) - nodes
    listed = re.findall(r"^\| `([A-Z0-9_.]+)` \|", format_config_page(), re.M)
    assert sorted(listed) == sorted(added | {"MODEL.SEM_SEG_HEAD.LOSS_TYPE"})


def test_text_that_markdown_would_hide_is_escaped():
    page = format_config_page()
    assert "w_ema &lt;- DECAY w_ema" in page
    assert "<" not in page
