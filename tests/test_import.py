"""What `import eseg_d2` leaves unchanged in the program that imports it."""

import subprocess
import sys

CODE = """
import warnings
before = list(warnings.filters)
import eseg_d2
assert list(warnings.filters) == before
warnings.warn("by the program itself", FutureWarning)
"""


def run(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_import_shows_no_warnings_and_keeps_those_of_the_program():
    done = run("-c", CODE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning") == 1 and "by the program itself" in done.stderr


def test_import_works_with_warnings_as_errors():
    done = run("-W", "error", "-c", "import eseg_d2, eseg_d2.engine, eseg_d2.inference")
    assert done.returncode == 0, done.stderr


UNCHANGED = """
import importlib
import pkgutil
import sys

import detectron2.evaluation
import detectron2.utils.video_visualizer
from detectron2.data import DatasetCatalog, MetadataCatalog


def look():
    modules = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "detectron2"}
    found = {(n, key): value for n, m in modules.items() for key, value in vars(m).items()}
    for (n, key), value in list(found.items()):
        if isinstance(value, type) and value.__module__.startswith("detectron2."):
            found |= {(n, key, k): v for k, v in vars(value).items()}
    for catalog in DatasetCatalog, MetadataCatalog:
        found |= {(catalog.__class__.__name__, n): catalog[n] for n in catalog}
    for n in MetadataCatalog:
        found |= {("metadata", n, k): v for k, v in MetadataCatalog[n].as_dict().items()}
    return found


before = look()
assert ("metadata", "coco_2017_val_panoptic", "panoptic_json") in before
assert ("detectron2.evaluation.coco_evaluation", "COCOeval_opt") in before
assert ("detectron2.utils.visualizer", "Visualizer", "draw_text") in before
assert ("detectron2.utils.video_visualizer", "VideoVisualizer", "_assign_colors") in before
import eseg_d2
for module in pkgutil.walk_packages(eseg_d2.__path__, "eseg_d2."):
    importlib.import_module(module.name)
after = look()
caches = ("__warningregistry__", "__abstractmethods__", "_abc_impl", "__annotations__", "__doc__")
changed = [k for k, v in before.items() if k[-1] not in caches and after.get(k) is not v]
assert not changed, changed
assert len(after) > len(before)
"""


def test_import_replaces_nothing_in_detectron2():
    """Its data sets, their metadata and all of its modules and classes stay the same objects."""
    done = run("-c", UNCHANGED)
    assert done.returncode == 0, done.stderr
