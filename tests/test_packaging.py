"""pyproject.toml, constraints.txt and the Makefile: they match what the package needs."""

import ast
import os
import re
import shutil
import site
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest

import eseg_d2

ROOT = Path(__file__).parents[1]
# Import name -> name on PyPI, where the two differ
PYPI = {"PIL": "pillow", "faster_coco_eval": "faster-coco-eval"}
# Not dependencies, for the reasons given in pyproject.toml
NOT_LISTED = {"cv2", "detectron2", "torchvision"}
# Installed with Detectron2, which depends on them
WITH_DETECTRON2 = {"fvcore", "iopath", "matplotlib", "tabulate", "termcolor", "yacs", "yaml"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Run a non-editable `pip install .` without dependencies, and return the folder it fills."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in "README.md", "LICENSE", "pyproject.toml", "setup.py":
        shutil.copy(ROOT / name, source)
    for name in "eseg_d2", "configs", "weights":
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run([*pip, *offline], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def metadata(installed) -> Distribution:
    (found,) = distributions(name="eseg_d2", path=[str(installed)])
    return found


def imported_by(file: Path) -> set[str]:
    """Return the top-level names that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_every_import_of_the_package_is_declared(metadata):
    # only those extras that functions import, and whose absence the package handles
    used = re.compile(r"extra == .(?:export|ap|video|app|wandb).$")
    required = [r for r in metadata.requires if "extra ==" not in r or used.search(r)]
    listed = {re.match(r"[\w-]+", r)[0].lower() for r in required}
    known = NOT_LISTED | WITH_DETECTRON2 | set(sys.stdlib_module_names) | {"eseg_d2"}
    for file in (ROOT / "eseg_d2").rglob("*.py"):
        names = imported_by(file) - known
        missing = {name for name in names if PYPI.get(name, name).lower() not in listed}
        assert not missing, f"{file} imports {missing}: declare them in pyproject.toml"


def test_every_file_is_installed(installed):
    expected = {f.relative_to(ROOT) for f in (ROOT / "eseg_d2").rglob("*") if f.is_file()}
    linked = [
        *(ROOT / "configs").rglob("*.yaml"),
        *(ROOT / "weights").glob("*.s*"),
        *(ROOT / "weights").glob("*.json"),
    ]
    expected |= {Path("eseg_d2", f.relative_to(ROOT)) for f in linked}
    found = {f.relative_to(installed) for f in (installed / "eseg_d2").rglob("*") if f.is_file()}
    assert {f for f in found if f.suffix != ".pyc"} == {f for f in expected if f.suffix != ".pyc"}


def test_extra_all_includes_every_other_extra(metadata):
    extras = set(metadata.metadata.get_all("Provides-Extra")) - {"all"}
    nested = [r for r in metadata.requires if r.startswith("eseg_d2[")]
    named = re.findall(r"\w+", " ".join(re.search(r"\[(.*?)\]", r)[1] for r in nested))
    assert set(named) == extras


def test_version_is_the_same_everywhere(metadata):
    citation = (ROOT / "CITATION.cff").read_text()
    assert metadata.version == eseg_d2.__version__
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == eseg_d2.__version__


@pytest.mark.slow
def test_installed_package_predicts_from_another_folder(installed, tmp_path):
    """The code of the README and a config named by its path work without the checkout."""
    images = tmp_path / "demo" / "images"
    images.mkdir(parents=True)
    (tmp_path / "output").mkdir()
    shutil.copy(ROOT / "demo" / "images" / "street_1.png", images)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({p!r})\n" for p in site.getsitepackages()]
    (site_packages / "dependencies.pth").write_text("".join(lines))
    shutil.copytree(installed, site_packages, dirs_exist_ok=True)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    code += (
        "import eseg_d2\n"
        "print(eseg_d2.load_config('configs/cityscapes/eseg_s.yaml').MODEL.META_ARCHITECTURE)\n"
        "print(eseg_d2.__file__)\n"
    )
    done = subprocess.run(
        [environment / "bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *_, architecture, file = done.stdout.splitlines()
    assert architecture == "SemanticSegmentor"
    assert Path(file).is_relative_to(site_packages)
    (saved,) = re.findall(r'save\("(.*?)"', code)
    assert (tmp_path / saved).stat().st_size > 0


def pins_of(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", ["constraints.txt", ".ci/oldest.txt"])
def test_constraints_pin_torch_and_torchvision(name):
    assert list(pins_of(name)) == ["torch", "torchvision"]


def test_oldest_constraints_match_the_declared_minimum(metadata):
    (lowest,) = (r.removeprefix("torch>=") for r in metadata.requires if r.startswith("torch>="))
    assert pins_of(".ci/oldest.txt")["torch"].startswith(lowest + ".")
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert metadata.metadata["Requires-Python"].removeprefix(">=") in workflow
    files = re.findall(r"constraints: (.*)", workflow)
    assert set(files) == {"constraints.txt", ".ci/oldest.txt"}


def make(*args):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # without the variables and flags of the `make test` that may run this
    ours = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    command = ["make", "-C", str(ROOT), *args]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_make_lists_its_targets():
    done = make()
    assert done.returncode == 0
    for target in "install", "demo", "test", "test-all", "coverage", "lint", "clean":
        assert f"make {target}" in done.stdout


def test_make_studies_use_existing_configs_and_pass_options_on():
    done = make("--dry-run", "camvid-study", "OPTS=--equal-time SOLVER.MAX_ITER 5")
    studies = [line.split() for line in done.stdout.splitlines() if "tools/study.py" in line]
    assert len(studies) == 2
    for words in studies:
        assert words[-3:] == ["--equal-time", "SOLVER.MAX_ITER", "5"]
        files = [word for word in words if word.endswith(".yaml")]
        assert len(files) > 2 and all((ROOT / file).is_file() for file in files)


def test_make_refuses_to_replace_a_folder_that_is_not_a_venv(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("")
    environment = tmp_path / "photos"
    done = make(f"VENV={environment}", f"{environment}/.installed/venv")
    assert done.returncode != 0
    assert "not a virtual environment" in done.stderr
    assert (environment / "cat.jpg").exists()


@pytest.mark.slow
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
