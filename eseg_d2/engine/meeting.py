"""How the processes of a run meet, and whether they are about to do the same."""

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import metadata
from urllib.parse import urlparse

import torch
from detectron2.config import CfgNode
from torch import distributed
from torch.distributed import Store, TCPStore

import eseg_d2
from eseg_d2.engine.processes import Place
from eseg_d2.engine.provenance import annotation_digest
from eseg_d2.engine.setup import all_keys, value_of
from eseg_d2.utils.errors import RunError

__all__ = ["compare", "meet", "what_must_be_equal"]

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds of waiting before it is said, for the first time
# What may differ from process to process: no result depends on it.
_LOCAL_KEYS = ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "LAUNCH.TIMEOUT_SECONDS")


def meet(place: Place, own: Mapping[str, str], limit: float) -> Store:
    """Wait for all processes of the run; every now and then say for whom.

    Args:
        place: of this process.
        own: see :func:`what_must_be_equal`.
        limit: seconds to wait.

    Returns:
        PyTorch's key-value store that they share.

    Raises:
        RunError: in all processes, if they are not about to do the same; or some have not come.
    """
    waiting = _Waiting(place, limit)
    store = _open_store(place, waiting)
    if store.add(f"place/{place.rank}", 1) > 1:
        raise RunError(
            f"two processes are number {place.rank} of {place.world_size} at {place.url}: give "
            "each machine another --machine-rank, from 0 on."
        )
    store.set(f"own/{place.rank}", json.dumps({**own, "host": socket.gethostname()}))
    keys = [f"own/{rank}" for rank in range(place.world_size)]
    while missing := [rank for rank, key in enumerate(keys) if not store.check([key])]:
        come = place.world_size - len(missing)
        waiting.wait(
            f"{come} of {place.world_size} processes have come to {place.url}, not yet: "
            f"{', '.join(map(str, missing))}"
        )
    if place.rank == 0:
        store.set("difference", compare([json.loads(store.get(key)) for key in keys]))
    difference = store.get("difference").decode()
    waiting, readers = _Waiting(place, limit), store.add("readers", 1)
    while place.rank == 0 and readers < place.world_size:  # the store ends with this process
        waiting.wait(f"{readers} of {place.world_size} processes have read what differs")
        readers = store.add("readers", 0)
    if difference:
        raise RunError(difference)
    return store


def what_must_be_equal(cfg: CfgNode, args, *, with_data: bool) -> dict[str, str]:
    """What a process is about to do: its config, command, code, versions and data, as text.

    Args:
        cfg: OUTPUT_DIR, DATALOADER.NUM_WORKERS, LAUNCH.TIMEOUT_SECONDS, the number of the device
            and the folders of DATASETS.PANOPTIC are left out: they may differ.
        args: of train_net.py: ``resume`` and ``eval_only``.
        with_data: also read the annotation files of the data sets.
    """
    equal = {key: repr(value_of(cfg, key)) for key in _leaves(cfg) if key not in _LOCAL_KEYS}
    equal["MODEL.DEVICE"] = cfg.MODEL.DEVICE.partition(":")[0]
    equal["DATASETS.PANOPTIC"] = repr([entry.get("name") for entry in cfg.DATASETS.PANOPTIC])
    for name in "resume", "eval_only":
        flag = "--" + name.replace("_", "-")
        equal[flag] = "given" if getattr(args, name, False) else "not given"
    equal["the code of eseg_d2"] = _digest_of_code()
    equal["torch"], equal["detectron2"] = torch.__version__, metadata.version("detectron2")
    if with_data:
        for name in sorted({*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}):
            equal[f"the annotations of {name}"] = annotation_digest(name)
    return equal


def compare(processes: Sequence[Mapping[str, str]]) -> str:
    """Compare what processes are about to do.

    Args:
        processes: of each, by rank: :func:`what_must_be_equal`, and its "host". What one of two
            does not state is not compared.

    Returns:
        A sentence that names what differs, with both values; "" if nothing does.
    """
    first = processes[0]
    for rank, other in enumerate(processes):
        keys = [key for key in first if key != "host" and other.get(key, first[key]) != first[key]]
        if keys:
            words = "; ".join(f"{key} is {first[key]} and {other[key]}" for key in keys)
            return (
                f"process 0 (on {first['host']}) and process {rank} (on {other['host']}) are not "
                f"about to do the same: {words}. Start all with the same command, config, code and "
                "data."
            )
    return ""


class _Waiting:
    """Sleeps a moment; says after a while, and then again and again, for whom; has an end."""

    def __init__(self, place: Place, limit: float):
        self._place, self._limit = place, limit
        self._start = time.monotonic()
        self._next = PATIENCE

    def wait(self, for_whom: str) -> None:
        time.sleep(0.1)
        waited = time.monotonic() - self._start
        if waited > self._limit:
            raise RunError(
                f"process {self._place.rank} has waited for {waited:.0f} s "
                f"(LAUNCH.TIMEOUT_SECONDS): {for_whom}.\n  All machines need the same "
                "--dist-url, with the first machine's address and a free port, the same "
                "--num-machines, and different --machine-rank."
            )
        if waited > self._next:
            self._next *= 2
            logger.warning("Waiting for %.0f s: %s", waited, for_whom)


def _open_store(place: Place, waiting: _Waiting) -> Store:
    url = urlparse(place.url)
    if url.scheme != "tcp":  # of torchrun, whose processes have met already
        return next(distributed.rendezvous(place.url, place.rank, place.world_size))[0]
    while place.rank > 0:  # TCPStore would try with a stack trace for each failure
        try:
            socket.create_connection((url.hostname, url.port), timeout=PATIENCE).close()
            break
        except OSError as e:
            waiting.wait(f"process 0 does not answer at {place.url} ({e.strerror or e})")
    try:
        return TCPStore(
            url.hostname,
            url.port,
            place.world_size,
            is_master=place.rank == 0,
            timeout=timedelta(seconds=60),
            wait_for_workers=False,
        )
    except RuntimeError as e:
        raise RunError(f"process {place.rank} cannot meet the others at {place.url}: {e}") from e


def _leaves(cfg: CfgNode) -> list[str]:
    return [key for key in all_keys(cfg) if not isinstance(value_of(cfg, key), CfgNode)]


def _digest_of_code() -> str:
    folder = os.path.dirname(os.path.abspath(eseg_d2.__file__))
    digest = hashlib.sha256()
    paths = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]
    for path in sorted(path for path in paths if path.endswith(".py")):
        digest.update(os.path.relpath(path, folder).encode())
        with open(path, "rb") as f:
            digest.update(f.read())
    return f"version {digest.hexdigest()[:12]}"
