"""Small street scenes for all tests, made once a session in both formats."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is slow, not wrong
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Detectron2 reads this when its data sets are registered, so it is set before any import
DATASETS = Path(tempfile.mkdtemp(prefix="eseg_d2_tests_"))
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
    """DETECTRON2_DATASETS, with street scenes of 64x128 in both formats: 12 to train, 4 unseen."""
    from eseg_d2.apps.scenes import generate_street_scenes

    for kind in "cityscapes", "coco":
        generate_street_scenes(
            DATASETS / "street_scenes" / kind,
            format=kind,
            num_train=12,
            num_val=4,
            size=(64, 128),
            seed=3,
            workers=2,
        )
    return DATASETS


def pytest_sessionfinish():
    import shutil

    shutil.rmtree(DATASETS, ignore_errors=True)
