"""Checks before a run starts: command line, machine, folder, data, weights."""

import argparse
import os

import torch
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from eseg_d2.config import load_config
from eseg_d2.data.datasets.builtin import require_datasets
from eseg_d2.engine.checkpoint import find_checkpoints, tag_file
from eseg_d2.engine.rendezvous import rank_from_environment
from eseg_d2.engine.weights import fetch_weights
from eseg_d2.engine.writers import require_wandb
from eseg_d2.modeling.sem_seg.head import SemanticHead

__all__ = ["check_launch", "prepare_run", "require_inputs"]


def prepare_run(args: argparse.Namespace) -> CfgNode:
    """Return the frozen config of a command line, checked against machine, data and weights.

    Args:
        args: arguments of train_net.py.

    Raises:
        ValueError, FileNotFoundError: see :func:`check_launch` and :func:`require_inputs`.
    """
    process = rank_from_environment()
    world_size = process.world_size if process else max(args.num_gpus * args.num_machines, 1)
    cfg = load_config(args.config_file, args.opts, world_size=world_size)
    check_launch(cfg, args, world_size)
    require_wandb(cfg)
    require_inputs(cfg, eval_only=args.eval_only)
    cfg.freeze()
    return cfg


def check_launch(cfg: CfgNode, args: argparse.Namespace, world_size: int) -> None:
    """Check the command line against the machine and the run's folder.

    Args:
        cfg: MODEL.DEVICE, MODEL.WEIGHTS, OUTPUT_DIR, LAUNCH and SOLVER are read.
        args: arguments of train_net.py.
        world_size: number of processes on all machines.

    Raises:
        ValueError: there are not enough GPUs, no address to meet at, a timeout that is not
            positive, a batch that does not divide, nothing to evaluate, or checkpoints of a run
            that this one does not resume.
    """
    found = torch.cuda.device_count()
    if args.num_gpus < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise ValueError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines} --machine-rank "
            f"{args.machine_rank}; expected at least 1 GPU and 1 machine, and a rank from 0 to one "
            "less than the number of machines"
        )
    if cfg.MODEL.DEVICE != "cpu" and args.num_gpus > found:
        raise ValueError(
            f"--num-gpus {args.num_gpus}, but this machine has {found}. Give at most that many, or "
            "MODEL.DEVICE cpu for as many processes without GPUs."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ValueError(
            f"--num-machines {args.num_machines} needs --dist-url tcp://FIRST_MACHINE:PORT, the "
            "same on all machines: the address of --machine-rank 0 and a free port on it"
        )
    if cfg.LAUNCH.TIMEOUT_SECONDS < 1:
        raise ValueError(
            f"LAUNCH.TIMEOUT_SECONDS is {cfg.LAUNCH.TIMEOUT_SECONDS}; expected 1 second or more"
        )
    if cfg.SOLVER.IMS_PER_BATCH % world_size:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which is not divisible by the "
            f"number of processes, {world_size}: make it a multiple of that"
        )
    _check_resume(cfg, args)


def _check_resume(cfg: CfgNode, args: argparse.Namespace) -> None:
    found = find_checkpoints(cfg.OUTPUT_DIR)
    if args.eval_only:
        if args.resume and not found:
            raise ValueError(
                f"--eval-only --resume, but there is no checkpoint in OUTPUT_DIR "
                f"{cfg.OUTPUT_DIR!r}: set it to the run's folder"
            )
        if not (cfg.MODEL.WEIGHTS or args.resume):
            raise ValueError(
                "--eval-only needs a trained model: append MODEL.WEIGHTS path/to/model_final.pth, "
                "or add --resume to take the last checkpoint in OUTPUT_DIR"
            )
    elif found and not args.resume:
        raise ValueError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} holds checkpoints of an earlier run, such as "
            f"{found[0]}: continue it with --resume, or give another OUTPUT_DIR for a new run"
        )
    elif args.resume and not found and os.path.isfile(tag := tag_file(cfg.OUTPUT_DIR)):
        raise ValueError(
            f"--resume, but the checkpoint that {tag} names is gone, and there is no other: "
            "restore it, or remove that file to start a new run"
        )


def require_inputs(cfg: CfgNode, *, eval_only: bool) -> None:
    """Check that the data sets and the initial weights are available, before anything is built.

    Args:
        cfg: DATASETS, MODEL and TEST.AUG are read.
        eval_only: check only DATASETS.TEST.

    Raises:
        FileNotFoundError: a data set or the weights are missing.
        ValueError: a data set is not registered, or the model does not support TEST.AUG or
            CLASS_WEIGHTS.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.CLASS_WEIGHTS and not issubclass(SEM_SEG_HEADS_REGISTRY.get(head.NAME), SemanticHead):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS is set, but {head.NAME} does not read it: leave it "
            "at ()"
        )
    if cfg.TEST.AUG.ENABLED and cfg.MODEL.META_ARCHITECTURE != "SemanticSegmentor":
        raise ValueError(
            "TEST.AUG.ENABLED is for semantic models (MODEL.META_ARCHITECTURE SemanticSegmentor), "
            f"but this is {cfg.MODEL.META_ARCHITECTURE}: set it to False"
        )
    require_datasets(cfg.DATASETS.TEST if eval_only else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
    fetch_weights(cfg.MODEL.WEIGHTS)
