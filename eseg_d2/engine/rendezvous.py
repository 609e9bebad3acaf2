"""The processes of a run: their ranks, how they meet and agree, and whether one dies or hangs."""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import distributed
from torch.distributed import Store, TCPStore

import eseg_d2
from eseg_d2.config import all_keys, value_of
from eseg_d2.engine.provenance import annotation_digest
from eseg_d2.engine.signals import Stopped, is_training, requested
from eseg_d2.utils.errors import RunError

__all__ = [
    "ProcessRank",
    "Watchdog",
    "compare",
    "is_connection_error",
    "rank_from_environment",
    "rendezvous",
    "run_fingerprint",
]

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds of waiting before the first message
# Keys that may differ between processes, because no result depends on them.
_LOCAL_KEYS = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "LAUNCH.TIMEOUT_SECONDS")
GRACE = 10.0  # seconds
PERIOD = 5.0  # seconds between heartbeats
ALIVE, DONE = b"a", b"d"
UNREACHABLE = 45000  # milliseconds until a machine that vanished silently counts as dead


class ProcessRank(NamedTuple):
    """The rank of a process among those of its run.

    Attributes:
        rank: rank among all processes, from 0.
        world_size: number of all processes.
        local_rank: rank among the processes of its machine, from 0.
        local_size: number of processes on its machine.
        url: where they meet, in the form of ``init_process_group``.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    url: str


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> ProcessRank | None:
    """Return the rank that torchrun or Slurm's srun assigned to this process, or None.

    Raises:
        ValueError: only some of torchrun's variables are set.
    """
    if {"RANK", "WORLD_SIZE"} <= environment.keys():
        return _torchrun(environment)
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1:
        return _slurm(environment)
    return None


def _torchrun(environment: Mapping[str, str]) -> ProcessRank:
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    missing = [n for n in (*names, "MASTER_ADDR", "MASTER_PORT") if n not in environment]
    if missing:
        raise ValueError(
            f"RANK and WORLD_SIZE are set in the environment, but not {', '.join(missing)}: start "
            "with torchrun, which sets all of them, or unset RANK and WORLD_SIZE"
        )
    rank, world_size, local_rank, local_size = (int(environment[name]) for name in names)
    return ProcessRank(rank, world_size, local_rank, local_size, "env://")


def _slurm(environment: Mapping[str, str]) -> ProcessRank:
    rank, world_size = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    local_rank = int(environment.get("SLURM_LOCALID", 0))
    per_node = environment.get("SLURM_NTASKS_PER_NODE") or environment.get(
        "SLURM_STEP_TASKS_PER_NODE", environment.get("SLURM_TASKS_PER_NODE", "1")
    )
    local_size = int(re.split(r"\D", per_node)[0])  # "4(x2)": 4 on each of 2 nodes
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    host = environment.get("MASTER_ADDR") or _first_host(nodes)
    # a port that all processes of the job can compute, and that other jobs rarely use
    port = environment.get("MASTER_PORT") or 20000 + int(environment.get("SLURM_JOB_ID", 0)) % 20000
    return ProcessRank(rank, world_size, local_rank, local_size, f"tcp://{host}:{port}")


def _first_host(nodes: str) -> str:
    """Return the first host of Slurm's list, such as "node[03-07,9],other"."""
    if not nodes:
        return "127.0.0.1"
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return re.sub(r"^([^\[,]*)\[(\w+)[^\]]*\]([^,]*).*", r"\1\2\3", nodes).split(",")[0]


def rendezvous(process: ProcessRank, fingerprint: Mapping[str, str], limit: float) -> Store:
    """Wait for all processes of the run, and log from time to time which are missing.

    Args:
        process: rank of this process.
        fingerprint: see :func:`run_fingerprint`.
        limit: timeout in seconds.

    Returns:
        PyTorch's key-value store, which they share.

    Raises:
        RunError: in all processes, if they are not about to do the same; some have not come; or
            the address has no host or no port.
    """
    waiting = _Waiting(process, limit)
    store = _open_store(process, waiting)
    if store.add(f"rank/{process.rank}", 1) > 1:
        raise RunError(
            f"two processes have rank {process.rank} of {process.world_size} at {process.url}: "
            "give each machine its own --machine-rank, from 0 on."
        )
    store.set(
        f"fingerprint/{process.rank}", json.dumps({**fingerprint, "host": socket.gethostname()})
    )
    keys = [f"fingerprint/{rank}" for rank in range(process.world_size)]
    while missing := [rank for rank, key in enumerate(keys) if not store.check([key])]:
        come = process.world_size - len(missing)
        waiting.wait(
            f"{come} of {process.world_size} processes have joined at {process.url}, missing: "
            f"{', '.join(map(str, missing))}"
        )
    if process.rank == 0:
        store.set("difference", compare([json.loads(store.get(key)) for key in keys]))
    difference = store.get("difference").decode()
    waiting, readers = _Waiting(process, limit), store.add("readers", 1)
    while process.rank == 0 and readers < process.world_size:  # the store ends with this process
        waiting.wait(f"{readers} of {process.world_size} processes have read the comparison")
        readers = store.add("readers", 0)
    if difference:
        raise RunError(difference)
    return store


def run_fingerprint(cfg: CfgNode, args: argparse.Namespace, *, with_data: bool) -> dict[str, str]:
    """Return what must be equal in all processes, as text: config, command, code, versions, data.

    Args:
        cfg: left out are the keys that may differ, the number of the device, and the folders of
            DATASETS.PANOPTIC.
        args: arguments of train_net.py, with ``resume`` and ``eval_only``.
        with_data: also read the annotation files of the data sets.
    """
    values = {key: value_of(cfg, key) for key in all_keys(cfg) if key not in _LOCAL_KEYS}
    equal = {key: repr(value) for key, value in values.items() if not isinstance(value, CfgNode)}
    equal["MODEL.DEVICE"] = cfg.MODEL.DEVICE.partition(":")[0]
    equal["DATASETS.PANOPTIC"] = repr([entry.get("name") for entry in cfg.DATASETS.PANOPTIC])
    for flag, given in ("--resume", args.resume), ("--eval-only", args.eval_only):
        equal[flag] = "given" if given else "not given"
    equal["the code of eseg_d2"] = _digest_of_code()
    equal["torch"], equal["detectron2"] = torch.__version__, metadata.version("detectron2")
    if with_data:
        for name in sorted({*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}):
            equal[f"the annotations of {name}"] = annotation_digest(name)
    return equal


def compare(processes: Sequence[Mapping[str, str]]) -> str:
    """Return a message that names what differs between processes, with both values, or "".

    Args:
        processes: result of :func:`run_fingerprint` and "host" of each process, by rank. What
            only one of two processes states is not compared.
    """
    first = processes[0]
    for rank, other in enumerate(processes):
        keys = [key for key in first if key != "host" and other.get(key, first[key]) != first[key]]
        if keys:
            words = "; ".join(f"{key} is {first[key]} and {other[key]}" for key in keys)
            return (
                f"process 0 (on {first['host']}) and process {rank} (on {other['host']}) differ: "
                f"{words}. Start all processes with the same command, config, code and data."
            )
    return ""


class _Waiting:
    """Waits in short steps up to a limit, and logs from time to time what is missing."""

    def __init__(self, process: ProcessRank, limit: float):
        self._process, self._limit = process, limit
        self._start = time.monotonic()
        self._next = PATIENCE

    def wait(self, for_whom: str) -> None:
        time.sleep(0.1)
        waited = time.monotonic() - self._start
        if waited > self._limit:
            raise RunError(
                f"process {self._process.rank} has waited for {waited:.0f} s "
                f"(LAUNCH.TIMEOUT_SECONDS): {for_whom}.\n  All machines need the same "
                "--dist-url, with the first machine's address and a free port, the same "
                "--num-machines, and different --machine-rank."
            )
        if waited > self._next:
            self._next *= 2
            logger.warning("Waiting for %.0f s: %s", waited, for_whom)


def _open_store(process: ProcessRank, waiting: _Waiting) -> Store:
    url = urlparse(process.url)
    if url.scheme != "tcp":  # torchrun's, whose processes have already met
        return next(distributed.rendezvous(process.url, process.rank, process.world_size))[0]
    if url.hostname is None or url.port is None:
        raise RunError(
            f"--dist-url {process.url}: expected tcp://FIRST_MACHINE:PORT, the address of the "
            "machine with --machine-rank 0, and a free port of it"
        )
    while process.rank > 0:  # TCPStore itself would print a stack trace for each failure
        try:
            socket.create_connection((url.hostname, url.port), timeout=PATIENCE).close()
            break
        except OSError as e:
            waiting.wait(f"process 0 does not answer at {process.url} ({e.strerror or e})")
    return TCPStore(
        url.hostname,
        url.port,
        process.world_size,
        is_master=process.rank == 0,
        timeout=timedelta(seconds=60),
        wait_for_workers=False,
    )


def _digest_of_code() -> str:
    folder = Path(eseg_d2.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return f"version {digest.hexdigest()[:12]}"


class Watchdog:
    """A context manager around the run that ends this process when another one is gone.

    If a process ends before it has left the context without an exception, or sends no heartbeats,
    the others log it and exit with status 1, whatever they are doing. Without it they would wait
    for half an hour (NCCL), or end with an error that does not name the cause (gloo).

    Every process keeps a TCP connection to the first one. The kernel closes it however the process
    ends, and both sides send heartbeats.
    """

    def __init__(self, url: str, output_dir: str, limit: float):
        """
        Args:
            url: where the processes met; its host is that of the first process.
            output_dir: OUTPUT_DIR, for the message.
            limit: seconds without a heartbeat after which a process counts as gone.
        """
        self._host = urlparse(url).hostname or os.environ.get("MASTER_ADDR", "127.0.0.1")
        self._output_dir, self._limit = output_dir, limit
        self._period = min(PERIOD, limit / 4)
        self._connections: list[socket.socket] = []
        self._leaving = threading.Event()

    def __enter__(self) -> "Watchdog":
        rank, world_size = comm.get_rank(), comm.get_world_size()
        server = socket.create_server(("", 0)) if rank == 0 else None
        ports = comm.all_gather(server.getsockname()[1] if server else None)
        if server:
            for _ in range(world_size - 1):
                connection, _ = server.accept()
                peer = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
                self._watch(connection, peer)
            server.close()
        else:
            connection = socket.create_connection((self._host, ports[0]), timeout=60)
            connection.sendall(rank.to_bytes(4, "big"))
            self._watch(connection, 0)
        threading.Thread(target=self._give_signs, daemon=True).start()
        comm.synchronize()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None and not (isinstance(error, Stopped) and error.agreed):
            if issubclass(kind, RuntimeError) and is_connection_error(error):
                time.sleep(GRACE)  # caused by the end of another process: give time to log that
            return  # the connections close with the process, which tells the others
        self._leaving.set()
        self._send(DONE)

    def _watch(self, connection: socket.socket, peer: int) -> None:
        connection.settimeout(self._period)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREACHABLE)
        self._connections.append(connection)
        threading.Thread(target=self._listen, args=(connection, peer), daemon=True).start()

    def _give_signs(self) -> None:
        while not self._leaving.wait(self._period):
            self._send(ALIVE)

    def _send(self, sign: bytes) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.sendall(sign)

    def _listen(self, connection: socket.socket, peer: int) -> None:
        silent = 0.0  # counted, not read from a clock, as this process may be the suspended one
        while silent < self._limit:
            try:
                received = connection.recv(64)
            except OSError as e:
                if isinstance(e, TimeoutError) and not e.errno:
                    silent += self._period
                    continue
                received = b""
            if DONE in received or self._leaving.is_set():
                return
            if not received:
                self._end(
                    f"process {peer} of this run has ended too early (its own output says why; if "
                    "there is none, it was killed)"
                )
            silent = 0.0
        self._end(
            f"process {peer} of this run has given no sign of life for {self._limit} s "
            "(LAUNCH.TIMEOUT_SECONDS): it is suspended, or its machine hangs or is unreachable"
        )

    def _end(self, reason: str) -> None:
        if requested() and not is_training():  # the same signal has ended the others
            os._exit(128 + requested())
        message = (
            f"{reason}, so process {comm.get_rank()} ends as well. The last checkpoint in "
            f"{self._output_dir} is kept: start all processes again with --resume."
        )
        logger.error(message)
        print(f"train_net.py: {message}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(1)


def is_connection_error(error: BaseException) -> bool:
    """Return whether communication between the processes failed, as when one of them ends."""
    words = ("closed by peer", "reset by peer", "gloo", "NCCL", "Broken pipe")
    return comm.get_world_size() > 1 and any(word in str(error) for word in words)
