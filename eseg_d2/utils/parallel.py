"""The same work on many items by several processes, with a progress bar."""

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
    """The number of processes to use: `workers`, or one for each CPU this process may use.

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


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Stops OpenCV's threads: items run side by side, and threads do not survive a fork."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start_worker(parent: int) -> None:
    """Sets up a worker: one thread, interrupts are the parent's, and no life without a parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def map_in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int, description: str
) -> list[Any]:
    """``[function(item) for item in items]`` with a progress bar that counts images.

    Args:
        function: must be picklable, as its results and the items; runs in workers that share
            nothing. With one worker it runs in this process.
        items: one for each image.
        workers: number of processes, at least 1; no more than there are items are started.
        description: of the progress bar.

    Raises:
        ChildProcessError: a worker was killed.
        Exception: the first that `function` raised, in the items' order.
    """
    results = []
    workers = min(workers, len(items))
    with tqdm(total=len(items), desc=description, unit="image") as bar, _single_threaded():
        if workers <= 1:
            for item in items:
                results.append(function(item))
                bar.update()
            return results
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),)) as pool:
            try:
                for result in pool.map(function, items, chunksize=4):
                    results.append(result)
                    bar.update()
            except BrokenExecutor as error:
                raise ChildProcessError(
                    "a worker process was killed, perhaps for lack of memory: try fewer workers"
                ) from error
            except BaseException:  # an impatient second Ctrl-C must find the workers gone
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
    return results
