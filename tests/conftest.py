"""Settings for all tests, and the small street scenes that they share."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine makes tests slow; that is not a failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# The processes of pytest-xdist inherit ESEG_D2_TESTS and so share one folder. Detectron2 reads
# DETECTRON2_DATASETS when it registers its data sets, so it must be set before any import.
OWN_FOLDER = "ESEG_D2_TESTS" not in os.environ
if OWN_FOLDER:
    os.environ["ESEG_D2_TESTS"] = tempfile.mkdtemp(prefix="eseg_d2_tests_")
DATASETS = Path(os.environ["ESEG_D2_TESTS"])
os.environ["DETECTRON2_DATASETS"] = str(DATASETS)
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see train_net.py; read when torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # `make test` runs one process per core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))  # for oracle.py, runs.py and so on


pytest_plugins = ["small_models", "chromium"]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def scenes() -> Path:
    """Return DETECTRON2_DATASETS, which holds 64x128 street scenes in both formats.

    Each format has 12 training and 4 validation images. All tests share them: a test that changes
    files must copy them first.
    """
    from eseg_d2.apps.scenes import generate_street_scenes

    with open(DATASETS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for kind in "cityscapes", "coco":
            folder = DATASETS / "street_scenes" / kind
            if not folder.exists():
                generate_street_scenes(
                    folder, format=kind, num_train=12, num_val=4, size=(64, 128), seed=3, workers=2
                )
    return DATASETS


@pytest.fixture
def mount(tmp_path):
    """Return a function that mounts a tmpfs with options on a new folder, or on a given one."""
    mounted = []

    def make(options, folder=None):
        if folder is None:
            folder = tmp_path / f"disk{len(mounted)}"
            folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount file systems, and not in most containers")
        mounted.append(folder)
        return folder

    yield make
    for folder in {*mounted}:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture
def package_log(caplog, monkeypatch):
    """Return ``caplog``, which also gets what the package logs to files and console of its own."""
    monkeypatch.setattr(logging.getLogger("eseg_d2"), "propagate", True)
    return caplog


def pytest_sessionfinish():
    if OWN_FOLDER:
        shutil.rmtree(DATASETS, ignore_errors=True)
