"""Start a run in one process or in many, on GPUs or CPUs, on one machine or several."""

import argparse
import errno
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import distributed
from torch import multiprocessing as torch_multiprocessing

from eseg_d2.data.datasets.panoptic_format import register_own
from eseg_d2.engine.rendezvous import (
    GRACE,
    ProcessRank,
    Watchdog,
    rank_from_environment,
    rendezvous,
    run_fingerprint,
)
from eseg_d2.engine.signals import Stopped, requested, stop_signals
from eseg_d2.utils.errors import RunError

__all__ = ["launch"]

logger = logging.getLogger(__name__)

# Timeout of a collective among processes that all send heartbeats: the first may evaluate for a
# long time while the others wait.
TIMEOUT = timedelta(minutes=60)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

Run = Callable[[argparse.Namespace, CfgNode], None]


def launch(run: Run, args: argparse.Namespace, cfg: CfgNode) -> None:
    """Call ``run(args, cfg)`` in every process of the run: this one, or those that it starts.

    Unlike Detectron2's ``launch`` it also works on CPUs (with gloo), and under torchrun and Slurm's
    srun, which start the processes themselves. SIGINT, SIGTERM and SIGUSR1 reach all processes.

    Args:
        run: a function defined in a module, so that other processes can import it.
        args: arguments of Detectron2's command line: ``num_gpus`` (processes on this machine),
            ``num_machines``, ``machine_rank``, ``dist_url``, ``resume`` and ``eval_only``.
        cfg: MODEL.DEVICE, OUTPUT_DIR, DATASETS and LAUNCH are read.

    Raises:
        SystemExit: with a message and status 1 if an error ended the run; with status 128 plus the
            number of the signal that ended it.
    """
    if args.num_gpus > 1:
        _start(run, args, cfg)
        return
    process: ProcessRank | None
    if args.num_machines > 1:
        process = ProcessRank(args.machine_rank, args.num_machines, 0, 1, args.dist_url)
    else:
        process = rank_from_environment()
    try:
        with stop_signals():
            if process:
                _end_with_sentence(_as_rank, process, run, args, cfg)
            else:
                _end_with_sentence(run, args, cfg)
    except Stopped as e:
        print(f"train_net.py: {e.sentence}", file=sys.stderr)
        raise


def _start(run: Run, args: argparse.Namespace, cfg: CfgNode) -> None:
    """Start the processes of this machine and wait for them."""
    size = args.num_gpus
    url = args.dist_url if args.dist_url != "auto" else f"tcp://127.0.0.1:{_free_port()}"
    ranks = [
        ProcessRank(args.machine_rank * size + i, args.num_machines * size, i, size, url)
        for i in range(size)
    ]
    processes: list[BaseProcess] = []

    def forward(number: int) -> None:
        for process in processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    sentences = multiprocessing.get_context("spawn").SimpleQueue()
    with stop_signals(forward):
        context = torch_multiprocessing.start_processes(
            _child,
            (ranks, run, args, cfg, sentences),
            nprocs=size,
            join=False,
            start_method="spawn",
        )
        processes += context.processes
        if requested():  # while they were started
            forward(requested())
        try:
            while not context.join(grace_period=GRACE):
                pass
        except torch_multiprocessing.ProcessExitedException as e:
            said = set()
            while not sentences.empty():
                said.add(sentences.get())
            said = said or {f"train_net.py: {_how_it_ended(e, cfg.OUTPUT_DIR)}"}
            print("\n".join(sorted(said)), file=sys.stderr)
            sys.exit(max(e.exit_code, 128 + requested() if requested() else 1))


def _how_it_ended(error: torch_multiprocessing.ProcessExitedException, output_dir: str) -> str:
    if number := requested():
        return f"{signal.Signals(number).name} ended the run before it had started."
    if error.signal_name:
        how = f"was killed by {error.signal_name}"
        if error.signal_name == "SIGKILL":
            how += " (often sent by the system when memory runs out)"
    else:
        how = f"exited with status {error.exit_code}"
    return (
        f"process {error.error_index} {how}, so the others were stopped. The last checkpoint in "
        f"{output_dir} is kept: --resume continues from there."
    )


def _child(index: int, ranks: list[ProcessRank], run: Run, args, cfg, sentences) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # only the parent gets Ctrl-C in a terminal, and forwards it once
    if cfg.MODEL.DEVICE == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max((os.cpu_count() or 1) // len(ranks), 1))
    # torch makes Linux send SIGINT when the parent is gone, and the parent may ignore SIGINT
    with stop_signals(even_ignored=True):
        try:
            if (parent := multiprocessing.parent_process()) and parent.is_alive():
                register_own(cfg.DATASETS.PANOPTIC)
                _end_with_sentence(_as_rank, ranks[index], run, args, cfg)
        except Stopped as e:
            sentences.put(f"train_net.py: {e.sentence}")
            raise
        except SystemExit as e:
            if isinstance(e.code, str):
                sentences.put(e.code)
                sys.exit(1)
            raise


def _end_with_sentence(function: Callable, *args) -> None:
    """Call a function; errors with a complete message end the process without a traceback."""
    try:
        function(*args)
    except RunError as e:
        sys.exit(f"train_net.py: {e}")
    except OSError as e:
        if e.errno not in _DISK_ERRORS:
            raise
        sys.exit(
            f"train_net.py: cannot write: {e}. The last checkpoint is kept; free disk space or "
            "make the folder writable, then continue with --resume."
        )


def _as_rank(process: ProcessRank, run: Run, args: argparse.Namespace, cfg: CfgNode) -> None:
    """Join the other processes, and run."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(process.local_rank)
    limit = cfg.LAUNCH.TIMEOUT_SECONDS
    fingerprint = run_fingerprint(cfg, args, with_data=process.local_rank == 0)
    try:
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=rendezvous(process, fingerprint, limit),
            world_size=process.world_size,
            rank=process.rank,
            timeout=TIMEOUT,
        )
    except (RuntimeError, ValueError) as e:
        if isinstance(e, RunError):
            raise
        raise RunError(
            f"process {process.rank} of {process.world_size} cannot join the others at "
            f"{process.url}: {e}"
        ) from e
    # Detectron2 0.6 has no public function for the groups of a machine's processes, nor needs them
    if hasattr(comm, "create_local_process_group") and process.world_size % process.local_size == 0:
        comm.create_local_process_group(process.local_size)
    stopped = None
    with Watchdog(process.url, cfg.OUTPUT_DIR, limit):
        try:
            run(args, cfg)
        except Stopped as e:
            if not e.agreed:
                raise
            stopped = e
        comm.synchronize()
    distributed.destroy_process_group()
    if stopped:
        raise stopped


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
