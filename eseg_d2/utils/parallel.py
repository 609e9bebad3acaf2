"""The same work on many items by several processes, with a progress bar."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
from tqdm import tqdm

__all__ = ["map_in_processes", "number_of_workers"]


def number_of_workers(workers: int | None) -> int:
    """Return the number of processes to use: `workers`, or one for each CPU that may be used.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    return workers


def map_in_processes(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int,
    description: str,
    *,
    if_killed: Callable[[Any, str], Any] | None = None,
) -> list[Any]:
    """Return ``[function(item) for item in items]``, with a progress bar that counts images.

    Args:
        function: must be picklable, as its results and the items; runs in workers that share
            nothing. With one worker it runs in this process, unless `if_killed` is given.
        items: one for each image.
        workers: number of processes, at least 1; no more than there are items are started.
        description: text of the progress bar.
        if_killed: gives the result of an item that its worker did not survive, from the item and
            the reason; by default that is an error.

    Raises:
        ChildProcessError: a worker was killed.
        Exception: the first that `function` raised, in the items' order.
    """
    results = []
    with tqdm(total=len(items), desc=description, unit="image") as bar, _single_threaded():

        def add(result: Any) -> None:
            results.append(result)
            bar.update()

        if if_killed is None:
            if min(workers, len(items)) > 1:
                _run(function, items, workers, add, chunksize=4)
            else:
                for item in items:
                    add(function(item))
        while if_killed is not None and len(results) < len(items):  # anew after each death
            try:
                _run(function, items[len(results) :], workers, add)
            except _WorkerDiedError:
                # any of the items under way may be to blame: the first of them goes on alone
                item = items[len(results)]
                try:
                    _run(function, [item], 1, add)
                except _WorkerDiedError as e:
                    add(if_killed(item, str(e)))
    return results


class _WorkerDiedError(ChildProcessError):
    pass


def _run(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    workers: int,
    add: Callable[[Any], None],
    chunksize: int = 1,
) -> None:
    """Call ``add`` with each result, in the items' order."""
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    others = set(multiprocessing.active_children())
    workers = min(workers, len(items))
    children = set()
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),)) as pool:
            results = pool.map(function, items, chunksize=chunksize)
            children = set(multiprocessing.active_children()) - others
            try:
                for result in results:
                    add(result)
            except BrokenExecutor:
                raise
            except BaseException:  # an impatient second Ctrl-C must find the workers gone
                for child in children:
                    child.terminate()
                raise
    except BrokenExecutor as e:
        # the pool has stopped those that were left
        codes = {child.exitcode for child in children if child.exitcode} - {-signal.SIGTERM}
        raise _WorkerDiedError(
            f"a worker process died with exit code {', '.join(map(str, codes)) or '?'}, "
            "perhaps for lack of memory: try fewer workers"
        ) from e


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Stop OpenCV's threads: items run side by side, and threads do not survive a fork."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start_worker(parent: int) -> None:
    """Set up a worker: one thread, interrupts are the parent's, and no life without a parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # looking for garbage among the parent's objects would copy them all

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
