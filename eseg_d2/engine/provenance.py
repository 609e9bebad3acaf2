"""Record what a run was made from: code, environment, data."""

import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from eseg_d2.engine.output_dir import read_record
from eseg_d2.utils.json_yaml import write_json_atomically

__all__ = [
    "RUN_FILE",
    "annotation_digest",
    "changed_keys",
    "dataset_fingerprint",
    "plain_config",
    "record_start",
]

RUN_FILE = "run.json"
_PACKAGES = (
    *("detectron2", "fvcore", "numpy", "opencv-python-headless", "pillow"),
    *("pycocotools", "timm", "torch", "torchvision"),
)


def record_start(cfg: CfgNode, start_iter: int) -> list[str]:
    """Write ``OUTPUT_DIR/run.json``; a resumed run adds to it.

    The file holds the command, the commit, versions, a fingerprint of each data set, and for each
    start of the run its time, iteration and number of processes. The config is in config.yaml.

    Args:
        cfg: config of the run.
        start_iter: first iteration; 0 for a new run.

    Returns:
        Sentences that describe what has changed since the run began.
    """
    path = os.path.join(cfg.OUTPUT_DIR, RUN_FILE)
    earlier = (read_record(path, _is_run) if start_iter else None) or {}
    now = {
        "command": [sys.executable, *sys.argv],
        "git": _git(),
        "environment": _environment(),
        "datasets": {
            name: dataset_fingerprint(name) for name in [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        },
    }
    start = {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "iteration": start_iter,
        "world_size": comm.get_world_size(),
        "images_per_batch": cfg.SOLVER.IMS_PER_BATCH,
    }
    content = {**now, "starts": [*earlier.get("starts", []), start]}
    write_json_atomically(path, content)
    return _differences(earlier, content) if earlier else []


def plain_config(cfg: CfgNode) -> dict:
    """Return a config as nested dicts of plain values, to store in a checkpoint."""
    return yaml.safe_load(cfg.dump())


def changed_keys(before: dict, now: dict, prefix: str = "") -> list[str]:
    """Return "KEY old -> new" for each key in which two of :func:`plain_config` differ."""
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += changed_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key} {old!r} -> {new!r}")
    return changes


def dataset_fingerprint(name: str) -> dict:
    """Return a checksum of a data set's annotations, and of the names and sizes of its files.

    Returns:
        ``{"fingerprint": hex digest, "images": number of image files}``. Pixels are not read.
    """
    digest = _annotations(name)
    entry = MetadataCatalog.get(name)
    counts = {}
    for key in ("image_root", "panoptic_root", "sem_seg_root"):
        files = sorted(_files(entry.get(key) or ""))
        counts[key] = len(files)
        digest.update(repr(files).encode())
    return {"fingerprint": digest.hexdigest(), "images": counts["image_root"]}


def annotation_digest(name: str) -> str:
    """Return a short checksum of those annotation files of a registered data set that exist."""
    return f"version {_annotations(name).hexdigest()[:12]}"


def _annotations(name: str):
    digest = hashlib.sha256()
    entry = MetadataCatalog.get(name)
    for key in ("panoptic_json", "json_file"):
        path = entry.get(key)
        if path and os.path.isfile(path):
            with open(path, "rb") as f:
                digest.update(f.read())
    return digest


def _files(root: str) -> list[tuple[str, int]]:
    """Return the relative path and the size of each file below ``root``."""
    return [
        (os.path.relpath(entry.path, root), entry.stat().st_size)
        for folder, _, _ in os.walk(root)
        for entry in os.scandir(folder)
        if entry.is_file()
    ]


def _is_run(content) -> bool:
    """Return whether content has the parts of :func:`record_start`'s file that are read again."""
    kinds = {"starts": list, "datasets": dict, "environment": dict}
    return isinstance(content, dict) and all(
        isinstance(content.get(key), kind) for key, kind in kinds.items()
    )


def _git() -> dict | None:
    """Return the commit of this package's folder, and whether it is dirty; None if no checkout."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    def git(*words: str) -> str:
        command = ["git", "-C", folder, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if os.path.realpath(git("rev-parse", "--show-toplevel")) != os.path.realpath(folder):
            return None
        changes = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _environment() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
    }
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    if torch.cuda.is_available():
        versions["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
        versions["cuda"] = str(torch.version.cuda)
    else:
        versions["cpu_threads"] = str(torch.get_num_threads())
    return versions


def _cpu_name() -> str:
    """Return the model of the CPU, or its architecture where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2] for line in file if "model name" in line).strip()
    except (OSError, StopIteration):
        return platform.machine()


def _differences(earlier: dict, now: dict) -> list[str]:
    sentences = []
    for name, data in now["datasets"].items():
        before = earlier.get("datasets", {}).get(name)
        if before and before != data:
            sentences.append(
                f"Data set {name} has changed since the run began ({before['images']} images then, "
                f"{data['images']} now): this run cannot be repeated exactly."
            )
    if earlier.get("git") and earlier["git"] != now["git"]:
        sentences.append(f"The code has changed: {earlier['git']} then, {now['git']} now.")
    changed = {
        name: (version, now["environment"].get(name))
        for name, version in earlier.get("environment", {}).items()
        if now["environment"].get(name) != version
    }
    if changed:
        words = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
        sentences.append(f"The environment has changed: {words}.")
    before = earlier.get("starts", [{}])[-1]
    for key, text in ("world_size", "Processes"), ("images_per_batch", "SOLVER.IMS_PER_BATCH"):
        if before.get(key) not in (None, now["starts"][-1][key]):
            sentences.append(f"{text}: {before[key]} then, {now['starts'][-1][key]} now.")
    return sentences
