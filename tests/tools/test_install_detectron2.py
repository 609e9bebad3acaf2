"""The Detectron2 installer, offline: a small sdist, an empty environment and a stand-in pip."""

import base64
import email
import hashlib
import importlib
import inspect
import io
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
SDIST_FILES = {
    "LICENSE": "as is",
    "setup.py": "raise SystemExit('not to be run here')",
    "detectron2/__init__.py": "",
    "detectron2/engine.py": "import numpy as np\ncast = np.int(3) + np.int(4)\n",
    "projects/DeepLab/deeplab/__init__.py": "x = 1\n",
    "projects/DeepLab/train_net.py": "not part of the package",
}
# Replaces the recipe next to a copy of the tool
RECIPE = """
from types import SimpleNamespace as Fix
SDIST, SHA256, VERSION = "pb1-detectron2==0.6", "0" * 64, "0.6+pb1.test"
REQUIRES, EXTRAS, MODULES = ["torch>=2.0"], {"all": ["psutil"]}, ["detectron2.engine"]
OPENCV = {"opencv-python", "opencv-python-headless"}
PROJECTS = {"DeepLab/deeplab": "deeplab"}
FIXES = [Fix(file="engine.py", old="import numpy as np", new="", count=1, why="no NumPy here")]
FIXES += [Fix(file="engine.py", old="np.int", new="int", count=2, why="NumPy 1.24")]
NEW_FILES = {"new.py": "y = 2\\n"}
"""
# Carries out what the tool asks of pip in the environment it runs in, and logs each call
PIP = """
import os, pathlib, shutil, sys, sysconfig, zipfile
args, site = sys.argv[1:], pathlib.Path(sysconfig.get_path("purelib"))
with open(os.environ["PIP_LOG"], "a") as log:
    print(*args, file=log)
    if "-c" in args:
        pins = pathlib.Path(args[args.index("-c") + 1]).read_text().split()
        print("constraints", *pins, file=log)
if os.environ.get("PIP_FAILS", "nothing") in args:
    sys.exit("pip: no network")
if "download" in args:
    shutil.copy(os.environ["SDIST"], args[args.index("-d") + 1])
elif "--find-links" in args:
    for old in site.glob("detectron2-*.dist-info"):
        shutil.rmtree(old)
    for wheel in pathlib.Path(args[args.index("--find-links") + 1]).glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
elif "opencv-python-headless" in args:
    (site / "cv2.py").write_text("")
"""


@pytest.fixture
def tool(monkeypatch):
    """Return the tool's module, with its real recipe."""
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("install_detectron2")


@pytest.fixture
def sdist(tmp_path):
    return write_sdist(tmp_path / "pb1-detectron2-0.6.tar.gz", SDIST_FILES)


def write_sdist(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def small_recipe(tool, monkeypatch):
    """Reduce the tool's recipe to what fits SDIST_FILES."""
    fix = tool.recipe.Fix("engine.py", "np.int(", "int(", 2, "NumPy 1.24")
    monkeypatch.setattr(tool.recipe, "FIXES", [fix])
    monkeypatch.setattr(tool.recipe, "NEW_FILES", {"new.py": "y = 2\n"})
    return tool.recipe


class Environment:
    """A virtual environment with stand-ins for pip, torch and torchvision."""

    def __init__(self, folder: Path, sdist: Path):
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv/bin/python"
        self.site = next((folder / "venv/lib").glob("python*")) / "site-packages"
        self.tool = folder / "tools/install_detectron2.py"
        self.tool.parent.mkdir()
        shutil.copy(TOOLS / "install_detectron2.py", self.tool)
        (self.tool.parent / "detectron2_recipe.py").write_text(RECIPE)
        self.log = folder / "pip.log"
        self.env = {"PATH": os.environ["PATH"], "PIP_LOG": str(self.log), "SDIST": str(sdist)}
        self.add("pip", "23.0", **{"pip/__init__.py": "", "pip/__main__.py": PIP})
        self.add("torch", "2.3.4+cpu", **{"torch.py": ""})
        self.add("torchvision", "0.1.2", **{"torchvision.py": ""})
        (self.site / "cv2.py").write_text("")

    def add(self, name: str, version: str, **files: str) -> None:
        files[f"{name}-{version}.dist-info/METADATA"] = f"Name: {name}\nVersion: {version}\n"
        for path, text in files.items():
            (self.site / path).parent.mkdir(exist_ok=True)
            (self.site / path).write_text(text)

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        command = [self.python, self.tool, *args]
        return subprocess.run(command, capture_output=True, text=True, env={**self.env, **env})

    def fail(self, **env: str) -> str:
        """Run the tool; return what it writes to stderr before its exit status 1."""
        done = self.run(**env)
        assert done.returncode == 1
        return done.stderr

    def detectron2(self, version: str, engine: str = "", **files: str) -> None:
        files |= {"detectron2/__init__.py": "", "detectron2/engine.py": engine}
        self.add("detectron2", version, **files)

    def pip_calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def says(self, code: str) -> str:
        return subprocess.check_output([self.python, "-c", code], text=True).strip()


VERSION_OF = "import importlib.metadata as m; print(m.version('detectron2'))"
CAST = "import detectron2.engine as e; print(e.cast)"


@pytest.fixture
def environment(tmp_path, sdist):
    return Environment(tmp_path, sdist)


def test_sdist_files_are_fixed_moved_and_added(tool, small_recipe, sdist):
    files = tool.fixed_files(sdist)
    assert files["detectron2/engine.py"] == b"import numpy as np\ncast = int(3) + int(4)\n"
    assert files["detectron2/projects/deeplab/__init__.py"] == b"x = 1\n"
    assert files["detectron2/new.py"] == b"y = 2\n"
    assert next(iter(files)) == "detectron2/FIXES.txt"
    assert b"detectron2/engine.py: NumPy 1.24" in files["detectron2/FIXES.txt"]
    assert set(files) == {
        "LICENSE",
        "detectron2/FIXES.txt",
        "detectron2/__init__.py",
        "detectron2/engine.py",
        "detectron2/new.py",
        "detectron2/projects/deeplab/__init__.py",
    }


@pytest.mark.parametrize("engine", ["int(3)", "np.int(3)", None])
def test_fix_that_does_not_match_stops_the_build(tool, small_recipe, tmp_path, engine):
    files = {"detectron2/engine.py": engine} if engine else {"LICENSE": ""}
    sdist = write_sdist(tmp_path / "other.tar.gz", files)
    with pytest.raises(SystemExit, match=r"NumPy 1\.24.*engine\.py.*'np\.int\(' [01] times, not 2"):
        tool.fixed_files(sdist)


def test_wheel_is_reproducible_and_its_record_is_correct(tool, small_recipe, sdist, tmp_path):
    wheels = []
    for folder in "a", "b":
        (tmp_path / folder).mkdir()
        wheels.append(tool.build_wheel(sdist, tmp_path / folder))
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    assert wheels[0].name == f"detectron2-{small_recipe.VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        info = f"detectron2-{small_recipe.VERSION}.dist-info"
        rows = [row.split(",") for row in archive.read(f"{info}/RECORD").decode().splitlines()]
        assert [name for name, _, _ in rows] == names
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert (digest, int(size)) == (f"sha256={expected.rstrip('=')}", len(content))
        meta = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert (meta["Name"], meta["Version"]) == ("detectron2", small_recipe.VERSION)
    assert "not an official build" in meta["Summary"]
    assert meta.get_all("Requires-Dist")[: len(small_recipe.REQUIRES)] == small_recipe.REQUIRES
    # pip copies in this order: our marker identifies a partial copy, the metadata a complete one
    assert names[0] == "detectron2/FIXES.txt"
    assert all(name.startswith(info) for name in names[-4:])


def test_pip_can_install_the_wheel(tool, small_recipe, sdist, tmp_path):
    wheel = tool.build_wheel(sdist, tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path / "site", wheel], check=True)
    code = "import detectron2.new, detectron2.projects.deeplab as d; print(detectron2.new.y, d.x)"
    done = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / "site", text=True)
    assert done.split() == ["2", "1"]


def test_wrong_hash_stops_the_download(tool, sdist, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    real = tool.run_pip
    monkeypatch.setattr(tool, "run_pip", lambda *a, **k: a[0] == "download" and real(*a, **k))
    (tmp_path / "to").mkdir()
    with pytest.raises(SystemExit, match="pip failed"):
        tool.download_sdist(tmp_path / "to")
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


def test_torch_is_kept_and_a_second_run_installs_nothing(environment):
    done = environment.run()
    assert done.returncode == 0, done.stderr
    assert "installed detectron2 0.6+pb1.test" in done.stdout
    assert environment.says(CAST) == "7"
    calls = environment.pip_calls()
    assert [call.split()[1] for call in calls[:3]] == ["install", "download", "install"]
    assert "--require-hashes" in calls[1]
    assert calls[3:] == ["constraints torch==2.3.4+cpu torchvision==0.1.2"]

    again = environment.run()
    assert again.returncode == 0
    assert "0.6+pb1.test is installed and works: left as it is" in again.stdout
    assert environment.pip_calls() == calls


def test_working_foreign_detectron2_is_left_alone(environment):
    environment.detectron2("0.6")
    done = environment.run()
    assert done.returncode == 0
    assert "detectron2 0.6 is installed and works: left as it is" in done.stdout
    assert environment.pip_calls() == []


def test_broken_foreign_detectron2_is_reported_and_left_alone(environment):
    environment.detectron2("0.6+cu118", engine="import libcuda_of_yesterday")
    message = environment.fail()
    assert "detectron2 0.6+cu118 that is installed does not import" in message
    assert "libcuda_of_yesterday" in message
    assert environment.pip_calls() == []


@pytest.mark.parametrize(
    "version, metadata, progress",
    [
        ("0.6+pb1.older", True, "replacing detectron2"),
        ("0.6+pb1.older", False, "replacing detectron2"),
        ("0.6+pb1.test", True, "repairing it"),
    ],
    ids=["older recipe", "killed pip", "lost a file"],
)
def test_remains_of_our_own_build_are_replaced(environment, version, metadata, progress):
    environment.detectron2(version, "import gone", **{"detectron2/FIXES.txt": ""})
    if not metadata:
        shutil.rmtree(environment.site / f"detectron2-{version}.dist-info")
    done = environment.run()
    assert done.returncode == 0, done.stderr
    assert progress in done.stdout
    assert environment.says(VERSION_OF) == "0.6+pb1.test"
    assert environment.says(CAST) == "7"


def test_empty_detectron2_folder_counts_as_not_installed(environment):
    (environment.site / "detectron2/__pycache__").mkdir(parents=True)
    assert environment.run().returncode == 0
    assert environment.says(VERSION_OF) == "0.6+pb1.test"


def test_detectron2_folder_in_the_working_directory_is_ignored(environment, tmp_path):
    (tmp_path / "cwd/detectron2").mkdir(parents=True)
    (tmp_path / "cwd/detectron2/__init__.py").write_text("raise ImportError('wrong one')")
    command = [environment.python, environment.tool]
    subprocess.run(command, check=True, cwd=tmp_path / "cwd", env=environment.env)
    assert environment.says(VERSION_OF) == "0.6+pb1.test"


def test_missing_torch_is_reported(environment):
    (environment.site / "torch.py").write_text("raise ImportError('libtorch.so')")
    message = environment.fail()
    assert "pip install torch torchvision" in message and "libtorch.so" in message
    assert environment.pip_calls() == []


def test_missing_pip_is_reported(environment):
    shutil.rmtree(environment.site / "pip")
    assert "-m ensurepip" in environment.fail()


def test_failing_pip_is_reported_with_its_command(environment):
    message = environment.fail(PIP_FAILS="download")
    assert "pip: no network" in message and "run this again" in message
    assert "--require-hashes" in message and "Traceback" not in message
    assert environment.run().returncode == 0


def test_wheel_dir_installs_nothing(environment, tmp_path):
    environment.detectron2("0.6", engine="import gone")  # is never imported
    done = environment.run("--wheel-dir", str(tmp_path / "new/wheels"))
    assert done.returncode == 0, done.stderr
    wheels = list((tmp_path / "new/wheels").iterdir())
    assert [wheel.name for wheel in wheels] == ["detectron2-0.6+pb1.test-py3-none-any.whl"]
    assert str(wheels[0]) in done.stdout
    assert environment.says(VERSION_OF) == "0.6"


def test_missing_opencv_is_installed_even_beside_a_foreign_detectron2(environment):
    environment.detectron2("0.6")
    (environment.site / "cv2.py").unlink()
    assert environment.run().returncode == 0
    assert [call.split()[1:] for call in environment.pip_calls()] == [
        ["install", "opencv-python-headless"]
    ]


def test_broken_opencv_is_reported_and_not_overwritten(environment):
    environment.detectron2("0.6")
    environment.add("opencv_python", "4.9", **{"cv2.py": "raise ImportError('libGL.so.1')"})
    message = environment.fail()
    assert "opencv-python is installed, but" in message and "libGL.so.1" in message
    assert environment.pip_calls() == []


def test_recipes_panoptic_ids_match_their_definition(tool):
    scope = {}
    exec(tool.recipe.NEW_FILES["utils/panoptic_id.py"], scope)
    assert scope["rgb2id"]((1, 2, 3)) == 1 + 2 * 256 + 3 * 256**2


def test_recipes_missing_extension_names_the_operation(tool):
    scope = {}
    exec(tool.recipe.NEW_FILES["utils/no_ext.py"], scope)
    with pytest.raises(NotImplementedError, match=r"_C\.nms_rotated.*pure-Python"):
        scope["_C"].nms_rotated()


def test_each_fix_changes_something_and_says_why(tool):
    for fix in tool.recipe.FIXES:
        assert fix.old != fix.new and fix.count > 0 and fix.why


def test_recipes_visualizer_draws_bright_labels(tool):
    """Check the installed Detectron2, of any recipe, with the rounding before Python 3.11.5."""
    from detectron2.utils.visualizer import Visualizer
    from matplotlib import colors

    source = textwrap.dedent(inspect.getsource(Visualizer._change_color_brightness))
    (fix,) = [f for f in tool.recipe.FIXES if "modified_color" in f.old]
    new = textwrap.indent(textwrap.dedent(fix.new), "    ")
    if new not in source:
        old = textwrap.indent(textwrap.dedent(fix.old), "    ")
        assert source.count(old) == fix.count
        source = source.replace(old, new)
    above = 1.0000000000000002
    rounding = SimpleNamespace(rgb_to_hls=lambda *_: (0, 1, 1), hls_to_rgb=lambda *_: (above, 0, 0))
    names = {"mplc": colors, "colorsys": rounding}
    exec(source, names)
    assert names["_change_color_brightness"](None, (1, 0.9, 0.8), 0.7) == (1, 0, 0)
