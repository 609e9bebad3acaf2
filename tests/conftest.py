"""Small street scenes for all tests, made once a run in both formats."""

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is slow, not wrong
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# The processes of pytest-xdist share one folder: they inherit the variable. Detectron2 reads its
# own variable when it registers data sets, so that is set before any import.
OWN_FOLDER = "ESEG_D2_TESTS" not in os.environ
if OWN_FOLDER:
    os.environ["ESEG_D2_TESTS"] = tempfile.mkdtemp(prefix="eseg_d2_tests_")
DATASETS = Path(os.environ["ESEG_D2_TESTS"])
os.environ["DETECTRON2_DATASETS"] = str(DATASETS)
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see train_net.py; read by torch's import
if "PYTEST_XDIST_WORKER" in os.environ:  # `make test` has a process on each core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))  # tests/oracle.py


pytest_plugins = ["small_models", "chromium"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def scenes() -> Path:
    """DETECTRON2_DATASETS, with street scenes of 64x128 in both formats: 12 to train, 4 unseen.

    All tests share them: a test that changes files copies them first.
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


def pytest_sessionfinish():
    if OWN_FOLDER:
        shutil.rmtree(DATASETS, ignore_errors=True)
