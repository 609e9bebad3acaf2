"""setup.py, constraints.txt and the Makefile against what the package needs."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
# import name -> name on PyPI, where these differ
PYPI = {"PIL": "pillow", "faster_coco_eval": "faster-coco-eval"}
# setup.py says why these are not in install_requires
NOT_LISTED = {"cv2", "detectron2", "torchvision"}
# Detectron2 is built on these and brings them
WITH_DETECTRON2 = {"fvcore", "iopath", "matplotlib", "tabulate", "termcolor", "yacs", "yaml"}


@pytest.fixture(scope="module")
def setup_arguments():
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", seen.update)
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return seen


def imported_by(file: Path) -> set[str]:
    """The top-level names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_every_import_of_the_package_is_declared(setup_arguments):
    # of extras only those that a function imports, with something to do where it is missing
    extras = setup_arguments["extras_require"]
    required = setup_arguments["install_requires"]
    required += [
        name for extra in ("export", "ap", "video", "app", "wandb") for name in extras[extra]
    ]
    listed = {re.match(r"[\w-]+", r)[0].lower() for r in required}
    known = NOT_LISTED | WITH_DETECTRON2 | set(sys.stdlib_module_names) | {"eseg_d2"}
    for file in (ROOT / "eseg_d2").rglob("*.py"):
        names = imported_by(file) - known
        missing = {name for name in names if PYPI.get(name, name).lower() not in listed}
        assert not missing, f"{file} imports {missing}: declare them in setup.py"


def test_every_file_beside_the_modules_is_packaged(setup_arguments):
    given = {
        file
        for package, patterns in setup_arguments["package_data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {f for f in (ROOT / "eseg_d2").rglob("*") if f.is_file() and f.suffix != ".py"}
    assert {f for f in others if "__pycache__" not in f.parts} == given


def test_every_folder_with_modules_is_packaged(setup_arguments):
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "eseg_d2").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == set(setup_arguments["packages"])


def test_all_holds_every_extra(setup_arguments):
    extras = setup_arguments["extras_require"]
    assert set(extras["all"]) == {name for names in extras.values() for name in names}


def test_constraints_pin_the_tested_pair():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition("==")[::2] for line in lines if not line.startswith("#")]
    assert [name for name, version in pins if version] == ["torch", "torchvision"]


def make(*args):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # not with the variables and flags of a `make test` that runs this
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    command = ["make", "-C", str(ROOT), *args]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_make_lists_its_targets():
    done = make()
    assert done.returncode == 0
    for target in "install", "demo", "test", "lint", "clean":
        assert f"make {target}" in done.stdout


def test_make_does_not_clear_a_folder_that_is_no_environment(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("")
    environment = tmp_path / "photos"
    done = make(f"VENV={environment}", f"{environment}/.installed/venv")
    assert done.returncode != 0
    assert "not a virtual environment" in done.stderr
    assert (environment / "cat.jpg").exists()


def test_make_replaces_an_environment_without_pip(tmp_path):
    environment = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (environment / ".installed").mkdir()
    (environment / ".installed/venv").write_text("")
    done = make(f"VENV={environment}", f"{environment}/.installed/venv")
    assert done.returncode == 0, done.stderr
    assert subprocess.run([environment / "bin/python", "-c", "import pip"]).returncode == 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("case $2 in *3,*) exit 1;; esac; echo Python 3.8.2", r"3\.10 or later.*Python 3\.8\.2"),
        ("exit 127", r"3\.10 or later.*not there"),
        ("case $2 in *ensurepip*) exit 1;; esac", "apt install python3-venv"),
    ],
    ids=["old", "absent", "without venv"],
)
def test_make_says_what_python_lacks(tmp_path, script, message):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    environment = tmp_path / ".venv"
    done = make(f"PYTHON={python}", f"VENV={environment}", f"{environment}/.installed/venv")
    assert done.returncode != 0
    assert re.search(message, done.stderr, re.DOTALL)
    assert not environment.exists()
