"""Removal of packages that a killed pip left half installed."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/repair_environment.py"


@pytest.fixture
def site(tmp_path):
    """Return the site-packages of a new virtual environment with one complete distribution."""
    venv.create(tmp_path / "venv", symlinks=True)
    site = next((tmp_path / "venv/lib").glob("python*")) / "site-packages"
    info = site / "whole-1.0.dist-info"
    info.mkdir()
    for file in "METADATA", "INSTALLER":
        (info / file).write_text("")
    (site / "whole.py").write_text("")
    record = ["whole.py,sha256=x,0", "__pycache__/whole.cpython-311.pyc,,"]
    record += [f"whole-1.0.dist-info/{file},," for file in ("METADATA", "INSTALLER", "RECORD")]
    (info / "RECORD").write_text("\n".join(record) + "\n")
    return site


def repair(site):
    python = site.parents[2] / "bin/python"
    return subprocess.check_output([python, TOOL], text=True)


def test_complete_distributions_are_left_alone(site):
    before = sorted(site.rglob("*"))
    assert repair(site) == ""
    assert sorted(site.rglob("*")) == before


@pytest.mark.parametrize(
    "gone", ["whole.py", "whole-1.0.dist-info/INSTALLER", "whole-1.0.dist-info/RECORD"]
)
def test_half_installed_distributions_are_removed(site, gone):
    (site / gone).unlink()
    assert "whole-1.0 was half installed" in repair(site)
    assert not (site / "whole-1.0.dist-info").exists()


def test_leftovers_of_an_interrupted_upgrade_are_removed(site):
    (site / "~hole").mkdir()
    (site / "~hole/big.so").write_text("")
    (site / "~hole.py").write_text("")
    repair(site)
    assert list(site.glob("~*")) == []
    assert (site / "whole.py").exists()


def test_tool_refuses_to_run_outside_a_virtual_environment():
    base = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    done = subprocess.run([base, TOOL], capture_output=True, text=True)
    assert done.returncode == 1
    assert "virtual environments only" in done.stderr
