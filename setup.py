"""Packaging of eseg_d2. How to install it: docs/install.md."""

from setuptools import find_packages, setup

# Not listed, on purpose:
# - detectron2: it is not on PyPI, where that name is free for anyone to take.
#   tools/install_detectron2.py installs it; an official build serves as well.
# - torchvision: Detectron2 cannot be imported without it, and naming it here would let pip
#   exchange a torch that is there for the one that the newest torchvision asks for.
# - OpenCV: it is on PyPI under four names that exclude each other;
#   tools/install_detectron2.py adds one if `import cv2` fails.
INSTALL_REQUIRES = [
    "torch>=2.6",  # Detectron2 leaves it to the user; the tested release is in constraints.txt
    "numpy",  # label maps and images
    "Pillow",  # reads and writes label maps and panoptic PNGs
    "pycocotools>=2.0.2",  # masks in COCO's run-length encoding
    "cityscapesscripts>=2.2.0",  # Cityscapes' label table, panoptic conversion, evaluation
    "safetensors",  # weights in a format that cannot run code; timm needs it, too
    "timm>=1.0",  # EfficientNets
    "tqdm",  # progress bars
    "Jinja2",  # pages: reports and the data set browser
]
EXTRAS_REQUIRE = {
    "export": [
        "onnxruntime",  # runs what tools/export_model.py exported, to verify it
        "onnxscript",  # torch.onnx.export needs it (and it brings onnx)
    ],
    "ap": [
        "faster-coco-eval",  # COCO's AP in C++; pycocotools computes the same in Python, slower
    ],
    "video": [
        "av>=14",  # reads and writes videos as FFmpeg does; OpenCV's wheel writes no H.264
    ],
    "app": [
        "starlette",  # demo/app.py, the page to try a model on
        "uvicorn",  # serves it
    ],
    "wandb": [
        "wandb",  # LOGGING.WANDB: figures of a run to Weights & Biases
    ],
    "dev": [
        "pytest",
        "pytest-xdist",  # a process on each core halves the tests' time on two
        "pytest-randomly",  # tests in random order: none may lean on what ran before it
        "hypothesis",  # tests over random sizes
        "httpx",  # asks the page as a visitor and as an attacker would
        "effdet",  # the independent BiFPN that tests compare ours with
        "playwright",  # drives a Chromium over the page, where one is installed
        "shapely",  # Detectron2's loader of Cityscapes polygons
        "ruff==0.17.5",  # pinned: another release may format in another way
        "import-linter",  # which room of the package may import which: see pyproject.toml
    ],
}
for extra in "export", "ap", "video", "app":  # tests use them
    EXTRAS_REQUIRE["dev"] += EXTRAS_REQUIRE[extra]
EXTRAS_REQUIRE["all"] = sorted({name for extra in EXTRAS_REQUIRE.values() for name in extra})

setup(
    name="eseg_d2",
    version="0.1.0",
    description="RSP and ESeg, multi-scale feature aggregation for segmentation, for Detectron2",
    python_requires=">=3.10",
    packages=find_packages(include=["eseg_d2", "eseg_d2.*"]),
    package_data={
        "eseg_d2.apps.doctor": ["templates/*"],
        "eseg_d2.apps.page": ["static/*"],
        "eseg_d2.apps.report": ["templates/*"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
