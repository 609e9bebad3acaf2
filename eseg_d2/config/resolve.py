"""The one place where a config is completed: what is derived, and what is overruled."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from eseg_d2.config.read import all_keys, read_config, value_of
from eseg_d2.data.datasets.panoptic_format import is_panoptic, register_own
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.errors import check_choice

__all__ = ["Change", "load_config", "resolve_config"]

logger = logging.getLogger(__name__)

_SCALED_KEYS = (  # by Detectron2's auto_scale_workers
    *("SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS"),
    *("SOLVER.STEPS", "TEST.EVAL_PERIOD", "SOLVER.CHECKPOINT_PERIOD"),
    "SOLVER.REFERENCE_WORLD_SIZE",
)


class Change(NamedTuple):
    """A key whose value is no longer the given one, or the default."""

    key: str
    before: Any
    after: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.key} {self.before!r} -> {self.after!r}: {self.reason}"


def load_config(
    config_file: str, overrides: Sequence[str] = (), *, world_size: int | None = None
) -> CfgNode:
    """Return a complete config: defaults, the file (with its ``_BASE_``), the overrides, resolved.

    The data sets of DATASETS.PANOPTIC are registered. What :func:`resolve_config` changes is
    logged.

    Args:
        config_file: a YAML file.
        overrides: ``[KEY, VALUE, KEY, VALUE, ...]``.
        world_size: the number of processes of a run; None where no run is started.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, a value has the wrong type, cannot be, or disagrees with the
            data set, or a data set is not registered.
    """
    cfg, given = read_config(config_file, overrides)
    register_own(cfg.DATASETS.PANOPTIC)
    resolve_config(cfg, given=given, world_size=world_size)
    return cfg


def resolve_config(
    cfg: CfgNode, *, given: Mapping[str, str] | None = None, world_size: int | None = None
) -> list[Change]:
    """Complete a config from machine, weights and data, and log each change in a line.

    These are all the changes that are made to a config:

    - MODEL.DEVICE becomes "cpu" on a machine without a GPU, and SOLVER.AMP.DTYPE "bfloat16" there.
    - MODEL.BACKBONE.FREEZE_AT becomes 0, and a ResNet's frozen norm "BN", if MODEL.WEIGHTS is "":
      frozen random layers learn nothing.
    - MODEL.SEM_SEG_HEAD.NUM_CLASSES and IGNORE_VALUE, and MODEL.ROI_HEADS.NUM_CLASSES of a model
      with such heads, are those of the panoptic data sets, if they were not given.
    - In a run, "SyncBN" becomes "BN" with one process, and Detectron2's "naiveSyncBN" with several
      processes on CPUs, since PyTorch's needs GPUs.
    - In a run, SOLVER and TEST.EVAL_PERIOD are scaled to the number of processes, if
      SOLVER.REFERENCE_WORLD_SIZE says for how many they were written.

    Args:
        cfg: changed in place. Its data sets are registered.
        given: where a key was set, a file's name say, for each that was not left at its default.
        world_size: the number of processes of a run; None where no run is started.

    Returns:
        The changes, in their order. A change of a given value is logged as a warning.

    Raises:
        ValueError: a value cannot be, or one that was given disagrees with the data set; the data
            sets have different classes, or the model is not one for them.
    """
    given = given or {}
    _check(cfg)
    spaces = _label_spaces(cfg)
    _check_classes(cfg, spaces)
    changes: list[Change] = []
    steps = [_device(cfg), _trained_layers(cfg), _classes(cfg, spaces, given)]
    if world_size is not None:
        steps += [_norms(cfg, world_size), _scaled(cfg, world_size)]
    for step in steps:  # each sees what those before it have changed
        for key, value, reason in step:
            if (before := value_of(cfg, key)) != value:
                changes.append(Change(key, before, value, reason))
                node, _, name = key.rpartition(".")
                value_of(cfg, node)[name] = value
    for change in changes:
        level = logging.WARNING if change.key in given else logging.INFO
        logger.log(level, "%s", change)
    return changes


_Step = Iterator[tuple[str, Any, str]]


def _device(cfg: CfgNode) -> _Step:
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        yield "MODEL.DEVICE", "cpu", "this machine has no GPU that PyTorch can use"
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        yield "SOLVER.AMP.DTYPE", "bfloat16", "CPUs do not compute in float16"


def _trained_layers(cfg: CfgNode) -> _Step:
    if cfg.MODEL.WEIGHTS:
        return
    reason = "MODEL.WEIGHTS is empty, and layers with random weights are not frozen"
    yield "MODEL.BACKBONE.FREEZE_AT", 0, reason
    name = cfg.MODEL.BACKBONE.NAME
    pyramids = {"build_bifpn_backbone": "BIFPN", "build_rsp_backbone": "RSP_PYRAMID"}
    while name in pyramids:  # one may stand on the other
        name = cfg.MODEL[pyramids.pop(name)].BOTTOM_UP
    if "resnet" in name and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        yield "MODEL.RESNETS.NORM", "BN", reason


def _classes(cfg: CfgNode, spaces: Mapping[str, LabelSpace], given: Mapping[str, str]) -> _Step:
    if not spaces:
        return
    name, space = next(iter(spaces.items()))
    values = {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": space.num_semantic,
        "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": space.ignore_label,
    }
    if cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":  # which has no such heads
        values["MODEL.ROI_HEADS.NUM_CLASSES"] = space.num_things
    for key, expected in values.items():
        got = value_of(cfg, key)
        if key in given and got != expected:
            raise ValueError(
                f"{key} is {got} in {given[key]}, but data set {name!r} needs {expected} (with "
                f"MODEL.PANOPTIC.SEMANTIC_CLASSES {cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES!r}): give "
                f"{key} {expected}, or leave the key out, then it is taken from the data set"
            )
        yield key, expected, f"data set {name!r}"


def _norms(cfg: CfgNode, world_size: int) -> _Step:
    if world_size > 1 and cfg.MODEL.DEVICE != "cpu":
        return
    norm, reason = "BN", "there is one process only"
    if world_size > 1:
        norm, reason = "naiveSyncBN", "there is no GPU"
    for key in all_keys(cfg.MODEL, "MODEL."):
        if key.endswith(".NORM") and value_of(cfg, key) == "SyncBN":
            yield key, norm, reason


def _scaled(cfg: CfgNode, world_size: int) -> _Step:
    from detectron2.engine import DefaultTrainer  # takes seconds, and few need it

    written_for = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if not written_for or written_for == world_size:
        return
    if cfg.SOLVER.IMS_PER_BATCH % written_for:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; expected a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE, {written_for}"
        )
    scaled = DefaultTrainer.auto_scale_workers(cfg, world_size)
    for key in _SCALED_KEYS:
        reason = f"written for {written_for} processes (SOLVER.REFERENCE_WORLD_SIZE)"
        yield key, value_of(scaled, key), f"{reason}, and there are {world_size}"


def _check(cfg: CfgNode) -> None:
    if cfg.MODEL.LOAD_PROPOSALS:
        raise ValueError(
            "MODEL.LOAD_PROPOSALS is True; files of proposals are pickles, which can run code, and "
            "are not read here: set it to False"
        )
    for key in "ACCUMULATE_STEPS", "IMS_PER_BATCH":
        if cfg.SOLVER[key] < 1:
            raise ValueError(f"SOLVER.{key} is {cfg.SOLVER[key]}; expected 1 or more")
    check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, ("float16", "bfloat16"))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise ValueError(
            f"INPUT.MIN_SIZE_TRAIN is {cfg.INPUT.MIN_SIZE_TRAIN}; with MIN_SIZE_TRAIN_SAMPLING "
            "'range' it must be the smallest and the largest size"
        )


def _label_spaces(cfg: CfgNode) -> dict[str, LabelSpace]:
    """Return those of the panoptic data sets of DATASETS.TRAIN and DATASETS.TEST, by name."""
    spaces = {}
    for name in [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]:
        if is_panoptic(name):
            spaces[name] = LabelSpace.from_metadata(
                MetadataCatalog.get(name), cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
            )
    return spaces


def _check_classes(cfg: CfgNode, spaces: Mapping[str, LabelSpace]) -> None:
    if len(set(spaces.values())) > 1:
        classes = "".join(f"\n  {name}: {', '.join(s.names)}" for name, s in spaces.items())
        raise ValueError(
            "the data sets of DATASETS.TRAIN and DATASETS.TEST must have the same classes in the "
            f"same order, with the same ids and isthing; got{classes}"
        )
    for name, space in spaces.items():
        if not space.num_things and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
            raise ValueError(
                f"data set {name!r} has no things, only stuff ({', '.join(space.names[:3])}, ...), "
                f"and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is for things. Take a "
                "semantic model, with _BASE_ configs/Base-RSP-Semantic.yaml or "
                "configs/Base-ESeg-Semantic.yaml; or give classes whose objects are told apart "
                "isthing 1 (docs/data.md)"
            )
