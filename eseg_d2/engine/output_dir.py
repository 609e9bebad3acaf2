"""The folder of a run: only one run at a time writes to it, and nothing in it is lost."""

import datetime
import errno
import fcntl
import itertools
import logging
import math
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import TextIO

from detectron2.utils import comm

from eseg_d2.utils.errors import RunError
from eseg_d2.utils.json_yaml import read_json_or_none, write_json_atomically

__all__ = [
    "RECORDS",
    "lock_output_dir",
    "plain_results",
    "read_record",
    "require_output_dir",
    "set_aside",
    "write_results",
]

logger = logging.getLogger(__name__)

RECORDS = ("metrics.json", "evaluations.json", "run.json")  # files to which a run keeps adding
LOCK_FILE = "run.lock"
_WRITTEN = (*RECORDS, LOCK_FILE, "results.json", "last_checkpoint", "config.yaml", "log.txt")

_held: dict[str, TextIO] = {}  # a lock lasts as long as its file is open


def require_output_dir(folder: str) -> None:
    """Create OUTPUT_DIR, and check that the files of a run can be written there.

    Raises:
        OSError: they cannot be written, or something else has the name of one of them.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise OSError(
            f"cannot write into OUTPUT_DIR {folder!r}: {e.strerror}. Give a folder that can be "
            "written to, with room for checkpoints: OUTPUT_DIR path"
        ) from e
    for entry in os.scandir(folder):
        is_checkpoint = entry.name.startswith("model_") and entry.name.endswith(".pth")
        if (is_checkpoint or entry.name in _WRITTEN) and os.path.exists(entry) != entry.is_file():
            kind = "a folder" if entry.is_dir() else "not a regular file"
            raise OSError(
                f"{entry.path} is {kind}, but a run writes a file of this name: move it away, or "
                "give another OUTPUT_DIR"
            )


def lock_output_dir(folder: str) -> None:
    """Lock OUTPUT_DIR against other runs until this process ends, however it ends.

    Call it in all processes of a run; the main one holds the lock.

    Raises:
        RunError: in all processes, if another run uses the folder.
    """
    refusal = comm.all_gather(_lock(folder) if comm.is_main_process() else None)[0]
    if refusal:
        raise RunError(refusal)


def _lock(folder: str) -> str | None:
    """Return why the folder must not be used, or None."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(os.path.realpath(folder), LOCK_FILE)
    if path in _held:
        return None
    file = open(path, "a+")  # noqa: SIM115, open until the process ends
    try:
        # lockf locks for this process alone: with flock, data workers that outlive it would keep it
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        with file:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
        if e.errno not in (errno.EACCES, errno.EAGAIN):
            logger.warning(
                "OUTPUT_DIR %s cannot be locked (%s): let no other run write there.", folder, e
            )
            return None
        return (
            f"OUTPUT_DIR {folder!r} is in use by {holder}. Wait for it, end it, or give another "
            "OUTPUT_DIR."
        )
    file.truncate(0)
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.write(f"process {os.getpid()} on {socket.gethostname()}, started at {now}\n")
    file.flush()
    _held[path] = file
    return None


def set_aside(folder: str, names: Sequence[str], why: str) -> None:
    """Append the next free number to the names of files, unless missing or empty, and log why."""
    paths = [os.path.join(folder, name) for name in names]
    paths = [path for path in paths if os.path.isfile(path) and os.path.getsize(path)]
    if not paths:
        return
    numbers = itertools.count(1)
    number = next(n for n in numbers if not any(os.path.lexists(f"{p}.{n}") for p in paths))
    for path in paths:
        os.rename(path, f"{path}.{number}")
    kept = ", ".join(f"{os.path.basename(path)}.{number}" for path in paths)
    logger.warning("%s: %s, kept as %s", folder, why, kept)


def read_record(path: str, is_valid: Callable[[object], bool]):
    """Return the content of a json file of a run; None if it is missing, damaged or not valid.

    A damaged file is set aside, so that it is not overwritten.
    """
    content = read_json_or_none(path)
    if content is not None and is_valid(content):
        return content
    folder, name = os.path.split(path)
    set_aside(folder, [name], f"{name} is damaged")
    return None


def plain_results(results):
    """Return Detectron2's nested results as plain floats; NaN becomes None."""
    if isinstance(results, dict):
        return {key: plain_results(value) for key, value in results.items()}
    return None if math.isnan(results) else float(results)


def write_results(results: dict, path: str) -> None:
    """Write Detectron2's nested results as strict json: NaN becomes null."""
    write_json_atomically(path, plain_results(results))
