"""What tools/install_detectron2.py builds its Detectron2 from: the source, the fixes, the names.

Every fix is for something that breaks with current libraries or without the compiled extension,
and says what. An installed Detectron2 shows the list in detectron2/FIXES.txt.
"""

import hashlib
from typing import NamedTuple

__all__ = [
    "EXTRAS",
    "FIXES",
    "MODULES",
    "NEW_FILES",
    "OPENCV",
    "PROJECTS",
    "REQUIRES",
    "SDIST",
    "SHA256",
    "VERSION",
    "Fix",
]

# The Python files of upstream's tag v0.6, without the C++ sources
SDIST = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"


class Fix(NamedTuple):
    """A replacement in one file: `old` must occur exactly `count` times."""

    file: str
    old: str
    new: str
    count: int
    why: str


# Upstream's setup.py, less: black==21.4b2 (only LazyConfig.to_py imports it; now the extra
# "lazy"), future and pydot (caffe2 export only), dataclasses (Python 3.6). Upstream leaves torch,
# torchvision and numpy out; they are imported, so they are named here, torch from the release on
# whose LRScheduler a fix below relies. The upper bound on omegaconf is from upstream's main.
REQUIRES = [
    "torch>=2.0",
    "torchvision",
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
]
EXTRAS = {"lazy": ["black"], "all": ["black", "shapely", "pygments>=2.2", "psutil"]}

# Upstream's setup.py moves these projects into the package
PROJECTS = {
    "PointRend/point_rend": "point_rend",
    "DeepLab/deeplab": "deeplab",
    "Panoptic-DeepLab/panoptic_deeplab": "panoptic_deeplab",
}

# An installation of which these import works
MODULES = ["detectron2.engine", "detectron2.evaluation", "detectron2.modeling"]

# The distributions that bring the module cv2
OPENCV = {"opencv-python", "opencv-python-headless"}
OPENCV |= {"opencv-contrib-python", "opencv-contrib-python-headless"}

_C = "from detectron2 import _C"
_NO_C = """\
try:
    from detectron2 import _C
except ImportError:
    from detectron2.utils.no_ext import _C"""
_FAST_EVAL = "from detectron2.evaluation.fast_eval_api import COCOeval_opt"
_RGB2ID = "from panopticapi.utils import rgb2id"
_OUR_RGB2ID = "from detectron2.utils.panoptic_id import rgb2id"
_COLORIZED = "        cityscapes_eval.args.colorized = False\n"
_INSTANCES_FILE = "        cityscapes_eval.args.gtInstancesFile ="

FIXES = [
    # The compiled extension is absent here, so its importers must import without it
    Fix("layers/deform_conv.py", _C, _NO_C, 1, "no compiled _C"),
    Fix("layers/roi_align_rotated.py", _C, _NO_C, 1, "no compiled _C"),
    Fix("layers/rotated_boxes.py", _C, _NO_C, 1, "no compiled _C"),
    Fix(
        "evaluation/coco_evaluation.py",
        _FAST_EVAL,
        f"try:\n    {_FAST_EVAL}\nexcept ImportError:\n    COCOeval_opt = COCOeval",
        1,
        "no compiled _C: pycocotools' own COCOeval, as upstream's main does",
    ),
    Fix(
        "evaluation/coco_evaluation.py",
        "self._use_fast_impl = use_fast_impl",
        "self._use_fast_impl = use_fast_impl and COCOeval_opt is not COCOeval",
        1,
        "no compiled _C: else the log calls pycocotools' evaluation unofficial",
    ),
    # NumPy 1.24 dropped the aliases of Python's types
    Fix("data/build.py", "np.int)", "int)", 1, "NumPy 1.24"),
    Fix("data/build.py", "dtype=np.int\n", "dtype=int\n", 1, "NumPy 1.24"),
    Fix("data/datasets/pascal_voc.py", "np.str)", "str)", 1, "NumPy 1.24"),
    Fix("evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", 2, "NumPy 1.24"),
    Fix("evaluation/sem_seg_evaluation.py", "np.int)", "int)", 2, "NumPy 1.24"),
    Fix("evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5, "NumPy 1.24"),
    Fix("structures/masks.py", "np.bool)", "bool)", 3, "NumPy 1.24"),
    Fix("utils/visualizer.py", "np.bool)", "bool)", 3, "NumPy 1.24"),
    Fix("utils/video_visualizer.py", "np.bool)", "bool)", 1, "NumPy 1.24"),
    # Other libraries and Python
    Fix("data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1, "Pillow 10"),
    Fix(
        "data/common.py",
        "sample(self._fallback_candidates,",
        "sample(list(self._fallback_candidates),",
        1,
        "Python 3.11: random.sample takes no set",
    ),
    Fix(
        "model_zoo/model_zoo.py",
        "import pkg_resources",
        "from importlib.resources import files",
        1,
        "setuptools 82 has no pkg_resources",
    ),
    Fix(
        "model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'str(files("detectron2.model_zoo").joinpath("configs", config_path))',
        1,
        "setuptools 82 has no pkg_resources",
    ),
    Fix(
        "engine/hooks.py",
        "lr_scheduler._LRScheduler)",
        "lr_scheduler.LRScheduler)",
        2,
        "torch 2.0: its own schedulers no longer derive from _LRScheduler, so the hook would "
        "leave them out of the checkpoint",
    ),
    Fix(
        "modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        1,
        "torch 1.10 warns in every run that meshgrid will require its indexing argument",
    ),
    Fix(
        "export/__init__.py",
        "from .api import *",
        "try:\n    from .api import *\nexcept ImportError:  # no caffe2\n    pass",
        1,
        "torch 2.0 and later bring no caffe2",
    ),
    Fix(
        "evaluation/cityscapes_evaluation.py",
        _COLORIZED,
        f'{_COLORIZED}        np.in1d = getattr(np, "in1d", np.isin)\n',
        2,
        "NumPy 2.4 has no in1d, which cityscapesscripts 2.3.0 uses",
    ),
    Fix(
        "evaluation/cityscapes_evaluation.py",
        _INSTANCES_FILE,
        "        cityscapes_eval.writeDict2JSON = lambda *_: None  # ./matches.json\n"
        f"{_INSTANCES_FILE}",
        1,
        "NumPy 2.4: count_nonzero no longer gives an int, so cityscapesscripts 2.3.0 fails to "
        "write its (unwanted) matches.json to the working directory",
    ),
    Fix(
        "utils/visualizer.py",
        "        return modified_color",
        "        return tuple(min(max(c, 0.0), 1.0) for c in modified_color)",
        1,
        "Python before 3.11.5 (python/cpython#106498): colorsys gives a bright colour as "
        "1.0000000000000002, which Matplotlib refuses, so that labels of bright objects fail",
    ),
    # panopticapi is not on PyPI
    Fix("utils/visualizer.py", _RGB2ID, _OUR_RGB2ID, 1, "no panopticapi"),
    Fix("projects/panoptic_deeplab/dataset_mapper.py", _RGB2ID, _OUR_RGB2ID, 1, "no panopticapi"),
]

NEW_FILES = {
    "utils/no_ext.py": '''"""Stands in for the compiled detectron2._C, which this build lacks."""


class _NoExtension:
    def __getattr__(self, name):
        raise NotImplementedError(
            f"detectron2._C.{name} is compiled code; this pure-Python build of detectron2 lacks it"
        )


_C = _NoExtension()
''',
    "utils/panoptic_id.py": '''"""Stands in for panopticapi.utils, which is not on PyPI."""
import numpy as np


def rgb2id(color):
    """Segment ids (red + 256 green + 65536 blue) of an HxWx3 image, or of one color."""
    return np.asarray(color, dtype=np.int64) @ np.array([1, 256, 65536])
''',
}

_DIGEST = hashlib.sha256(repr((SHA256, REQUIRES, EXTRAS, FIXES, NEW_FILES)).encode()).hexdigest()
# The local part (after the +) says that this is not upstream's own build
VERSION = f"0.6+pb1.{_DIGEST[:8]}"
