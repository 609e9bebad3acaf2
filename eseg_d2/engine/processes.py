"""The processes of a run: which there are, how they meet, how they end together."""

import inspect
import logging
import os
import re
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import torch
from detectron2.modeling import Backbone
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Place", "data_parallel", "freeze_unused_levels", "place_from_environment"]

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a process stands among those of its run.

    Attributes:
        rank: among all, from 0.
        world_size: number of all.
        local_rank: among those of its machine, from 0.
        local_size: number of those.
        url: where they meet, as ``init_process_group`` takes it.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    url: str


def place_from_environment(environment: Mapping[str, str] = os.environ) -> Place | None:
    """The place that torchrun or Slurm's srun has given to this process, or None.

    Args:
        environment: variables of the process.

    Raises:
        ValueError: some of the variables are there and others not.
    """
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        return _torchrun(environment)
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1:
        return _slurm(environment)
    return None


def _torchrun(environment: Mapping[str, str]) -> Place:
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    missing = [n for n in (*names, "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if missing:
        raise ValueError(
            f"RANK and WORLD_SIZE are set in the environment, but not {', '.join(missing)}: start "
            "with torchrun, which sets all, or unset RANK and WORLD_SIZE"
        )
    rank, world_size, local_rank, local_size = (int(environment[name]) for name in names)
    return Place(rank, world_size, local_rank, local_size, "env://")


def _slurm(environment: Mapping[str, str]) -> Place:
    rank, world_size = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    local_rank = int(environment.get("SLURM_LOCALID", 0))
    per_node = environment.get("SLURM_NTASKS_PER_NODE") or environment.get(
        "SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", "1")
    )
    local_size = int(re.match(r"\d+", per_node).group())  # "4(x2)": 4 on each of 2 nodes
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    host = environment.get("MASTER_ADDR") or _first_host(nodes)
    # a port that all processes of the job know, and other jobs mostly do not take
    port = environment.get("MASTER_PORT") or 20000 + int(environment.get("SLURM_JOB_ID", 0)) % 20000
    return Place(rank, world_size, local_rank, local_size, f"tcp://{host}:{port}")


def _first_host(nodes: str) -> str:
    """Of Slurm's list of hosts, "node[03-07,9],other"."""
    if not nodes:
        return "127.0.0.1"
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return re.sub(r"^([^\[,]*)\[(\w+)[^\]]*\]([^,]*).*", r"\1\2\3", nodes).split(",")[0]


def freeze_unused_levels(model: nn.Module) -> None:
    """Freeze the parameters of the backbone that no head can train, and say so.

    A head that takes some levels of a pyramid only leaves others without a gradient, for which
    several processes would wait. Which levels it takes is told by its attributes, named
    "in_features" or "..._in_features" as those of Detectron2's heads are.

    Args:
        model: one of Detectron2's meta-architectures, changed in place.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        return
    own = set(backbone.modules())
    attributes = [item for m in model.modules() if m not in own for item in vars(m).items()]
    lists = [v for k, v in attributes if k.endswith("in_features") and isinstance(v, list | tuple)]
    levels, used = backbone.output_shape().keys(), {name for names in lists for name in names}
    if not used & levels or used >= levels:
        return
    unused = _without_gradient(backbone, used & levels)
    if unused:
        others = ", ".join(sorted(levels - used))
        logger.warning("No head takes %s: %d parameters are frozen", others, len(unused))
    for parameter in unused:
        parameter.requires_grad_(False)


def _without_gradient(backbone: Backbone, used: set[str]) -> list[nn.Parameter]:
    parameters = [p for p in backbone.parameters() if p.requires_grad]
    was_training = backbone.training
    backbone.eval()  # no norm learns from this image
    size = 2 * max(backbone.size_divisibility, 32)
    with torch.enable_grad():
        features = backbone(torch.zeros(1, 3, size, size, device=parameters[0].device))
        total = sum(features[name].sum() for name in used)
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    backbone.train(was_training)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]


def data_parallel(model: nn.Module) -> nn.Module:
    """The model, wrapped by DistributedDataParallel where there are several processes."""
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    devices = [device.index] if device.type == "cuda" else None
    # PyTorch is renaming the argument
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(model, device_ids=devices, **{buffers: False})
