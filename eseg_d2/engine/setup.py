"""From a config file and overrides to a config that can be trained."""

import difflib
import logging
import os
from collections.abc import Sequence

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from eseg_d2.config import add_eseg_config
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.data.datasets.panoptic import is_panoptic, register_own
from eseg_d2.engine.config_file import check_config_file, check_values
from eseg_d2.modeling.backbone.efficientnet_weights import fetch_pretrained
from eseg_d2.structures.label_space import LabelSpace
from eseg_d2.utils.errors import check_choice

__all__ = [
    "all_keys",
    "autocast_dtype",
    "fetch_weights",
    "load_config",
    "merge_config",
    "require_inputs",
    "set_class_counts",
    "value_of",
]

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Return a complete config: defaults, the file (with its ``_BASE_``), then the overrides.

    The data sets of DATASETS.PANOPTIC are registered, and the numbers of classes set from the data
    set. On a machine without a GPU MODEL.DEVICE becomes ``"cpu"``. With MODEL.WEIGHTS ``""`` no
    layer of the bottom-up stays frozen.

    Args:
        config_file: a YAML file.
        overrides: ``[KEY, VALUE, KEY, VALUE, ...]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is unknown, a value has the wrong type, or a data set is not registered.
    """
    cfg = merge_config(config_file, overrides)
    _require_supported(cfg)
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and len(cfg.INPUT.MIN_SIZE_TRAIN) != 2:
        raise ValueError(
            f"INPUT.MIN_SIZE_TRAIN is {cfg.INPUT.MIN_SIZE_TRAIN}; with MIN_SIZE_TRAIN_SAMPLING "
            "'range' it must be the smallest and the largest size"
        )
    _train_random_layers(cfg)
    register_own(cfg.DATASETS.PANOPTIC)
    _require_equal_classes(cfg)
    _require_things(cfg)
    set_class_counts(cfg)
    return cfg


def merge_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, the file (with its ``_BASE_``), then the overrides; looks at no data set.

    Args and errors are those of :func:`load_config`.
    """
    if not os.path.isfile(config_file):
        raise FileNotFoundError(
            f"no config file {config_file!r} in {os.getcwd()}; see configs/ for those there are"
        )
    cfg = get_cfg()
    add_eseg_config(cfg)
    defaults = cfg.clone()
    check_config_file(config_file)
    try:
        # not Detectron2's default, by which a YAML can run code
        cfg.merge_from_file(config_file, allow_unsafe=False)
        check_values(cfg, defaults)
    except (KeyError, AssertionError, ValueError, yaml.YAMLError) as e:
        raise ValueError(f"{config_file}: {_explain(cfg, e)}") from e
    except (AttributeError, TypeError, RecursionError, MemoryError) as e:
        raise ValueError(
            f"{config_file} is no config: it, or its _BASE_, does not consist of KEY: VALUE lines"
        ) from e
    try:
        cfg.merge_from_list(list(overrides))
        check_values(cfg, defaults)
    except (KeyError, AssertionError, ValueError, MemoryError) as e:
        raise ValueError(f"KEY VALUE overrides {list(overrides)}: {_explain(cfg, e)}") from e
    return cfg


def _require_supported(cfg: CfgNode) -> None:
    if cfg.MODEL.LOAD_PROPOSALS:
        raise ValueError(
            "MODEL.LOAD_PROPOSALS is True; files of proposals are pickles, which can run code, and "
            "are not read here: set it to False"
        )
    for key in "ACCUMULATE_STEPS", "IMS_PER_BATCH":
        if cfg.SOLVER[key] < 1:
            raise ValueError(f"SOLVER.{key} is {cfg.SOLVER[key]}; expected 1 or more")
    check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, tuple(_DTYPES))


def autocast_dtype(cfg: CfgNode) -> torch.dtype | None:
    """What SOLVER.AMP asks for, or None. A CPU computes in bfloat16, whatever is asked for."""
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.DTYPE == "float16":
        logger.warning("SOLVER.AMP.DTYPE is float16; on a CPU bfloat16 is used in its place.")
        return torch.bfloat16
    return _DTYPES[cfg.SOLVER.AMP.DTYPE]


def set_class_counts(cfg: CfgNode) -> None:
    """Set what the first panoptic data set says: NUM_CLASSES of the heads, and IGNORE_VALUE.

    Args:
        cfg: changed in place; left alone if its data set is not a panoptic one.
    """
    for space in _label_spaces(cfg).values():
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = space.num_semantic
        cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = space.ignore_label
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = space.num_things
        return


def _label_spaces(cfg: CfgNode) -> dict[str, LabelSpace]:
    """Of the panoptic data sets of DATASETS.TRAIN and DATASETS.TEST, by name."""
    spaces = {}
    for name in [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]:
        if is_panoptic(name):
            spaces[name] = LabelSpace.from_metadata(
                MetadataCatalog.get(name), cfg.MODEL.PANOPTIC.SEMANTIC_CLASSES
            )
    return spaces


def _require_equal_classes(cfg: CfgNode) -> None:
    spaces = _label_spaces(cfg)
    if len(set(spaces.values())) > 1:
        classes = "".join(f"\n  {name}: {', '.join(s.names)}" for name, s in spaces.items())
        raise ValueError(
            "the data sets of DATASETS.TRAIN and DATASETS.TEST must have the same classes in the "
            f"same order, with the same ids and isthing; got{classes}"
        )


def _require_things(cfg: CfgNode) -> None:
    for name, space in _label_spaces(cfg).items():
        if not space.num_things and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
            raise ValueError(
                f"data set {name!r} has no things, only stuff ({', '.join(space.names[:3])}, ...), "
                f"and MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is for things. Take a "
                "semantic model, with _BASE_ configs/Base-RSP-Semantic.yaml or "
                "configs/Base-ESeg-Semantic.yaml; or give classes whose objects are told apart "
                "isthing 1 (docs/data.md)"
            )


def require_inputs(cfg: CfgNode, *, eval_only: bool) -> None:
    """Check that the data sets and the initial weights can be had, before anything is built.

    Args:
        cfg: DATASETS, MODEL.WEIGHTS and MODEL.EFFICIENTNET.PRETRAINED are read.
        eval_only: then only DATASETS.TEST is needed.

    Raises:
        FileNotFoundError: a data set or the weights are missing.
        ValueError: a data set is not registered, TEST.AUG is not for this model, or the ImageNet
            weights were trained with another normalisation.
    """
    if cfg.TEST.AUG.ENABLED and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        raise ValueError(
            "TEST.AUG.ENABLED is for semantic models (MODEL.META_ARCHITECTURE SemanticSegmentor), "
            f"and this is {cfg.MODEL.META_ARCHITECTURE}: set it to False"
        )
    require_datasets(cfg.DATASETS.TEST if eval_only else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    fetch_weights(cfg.MODEL.WEIGHTS)
    if not (cfg.MODEL.WEIGHTS or eval_only) and _has_pretrained_efficientnet(cfg):
        fetch_pretrained(cfg)


def _has_efficientnet(cfg: CfgNode) -> bool:
    name = cfg.MODEL.BACKBONE.NAME
    return "efficientnet" in (cfg.MODEL.BIFPN.BOTTOM_UP if name == "build_bifpn_backbone" else name)


def _has_pretrained_efficientnet(cfg: CfgNode) -> bool:
    return _has_efficientnet(cfg) and bool(cfg.MODEL.EFFICIENTNET.PRETRAINED)


def fetch_weights(weights: str) -> None:
    """Make sure that MODEL.WEIGHTS is here, downloading it into Detectron2's cache if it is a URL.

    Raises:
        FileNotFoundError: no such file, or the URL cannot be reached.
    """
    if not weights:
        return
    try:
        found = os.path.isfile(PathManager.get_local_path(weights))
        reason = "no such file"
    except Exception as e:  # the handlers behind PathManager raise all kinds of errors
        found, reason = False, f"{type(e).__name__}: {e}"
    if not found:
        raise FileNotFoundError(
            f"cannot get MODEL.WEIGHTS {weights!r}: {reason}.\n"
            "  Give a file or a URL that can be reached, or MODEL.WEIGHTS '' to start from random "
            "weights."
        )


def _train_random_layers(cfg: CfgNode) -> None:
    """Frozen layers without weights learn nothing, and frozen norms let the loss diverge."""
    if cfg.MODEL.WEIGHTS or _has_pretrained_efficientnet(cfg):
        return
    changes = {}
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        changes["MODEL.BACKBONE.FREEZE_AT"] = 0
    if cfg.MODEL.RESNETS.NORM == "FrozenBN" and not _has_efficientnet(cfg):
        changes["MODEL.RESNETS.NORM"] = "BN"
    if changes:
        cfg.merge_from_list([word for change in changes.items() for word in change])
        logger.warning(
            "MODEL.WEIGHTS is empty: all layers start from random weights, so none is frozen (%s).",
            ", ".join(f"{key} {value}" for key, value in changes.items()),
        )


def _explain(cfg: CfgNode, error: Exception) -> str:
    message = str(error.args[0] if len(error.args) == 1 else error)
    words = [word for word in message.replace("'", " ").split() if "." in word or word.isupper()]
    keys = all_keys(cfg)
    for word in words:
        similar = difflib.get_close_matches(word, keys, n=2, cutoff=0.7)
        if word not in keys and similar:
            return f"{message}. Did you mean {' or '.join(similar)}?"
    return message


def all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    """Names of all keys below a node, "MODEL.DEVICE" for one; ``prefix`` goes before each."""
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys += all_keys(value, f"{prefix}{name}.")
    return keys


def value_of(cfg: CfgNode, key: str):
    """The value of a key such as "MODEL.DEVICE"."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg
