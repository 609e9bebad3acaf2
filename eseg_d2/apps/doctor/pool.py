"""Run a function over many items in processes, and outlive the death of a process."""

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["WorkerDied", "run_in_processes"]


class WorkerDied(Exception):
    """The process that worked on an item was killed; the message tells its exit code."""


class _Worker:
    """A process, and the index of the item that it works on.

    It has one item at a time. So it is known which one killed it, and a full pipe cannot make
    the two sides wait for each other.
    """

    def __init__(self, context, function: Callable[[Any], Any]):
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, self.connection, function), daemon=True
        )
        self.process.start()
        theirs.close()  # only the worker holds it now: the pipe ends when the worker does
        self.index = -1

    def send(self, index: int, item: Any) -> None:
        self.index = index
        self.connection.send(item)

    def receive(self) -> Any:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return WorkerDied(f"its process died with exit code {self.process.exitcode}")

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _work(mine: Connection, parents: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's
    gc.freeze()  # looking for garbage among the parent's objects would copy them all
    parents.close()  # else the pipe would not end with the parent
    while True:
        try:
            item = mine.recv()
        except EOFError:
            return
        mine.send(function(item))


def run_in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the item, result) as they come.

    Args:
        function: can be pickled, as the items and the results; raises nothing.
        items: to work on.
        workers: number of processes, at least 1.

    Yields:
        A :class:`WorkerDied` in the result's place if the worker did not survive the item.
    """
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    todo = iter(enumerate(items))
    pool = [_Worker(context, function) for _ in range(min(workers, len(items)))]
    busy: dict[Connection, _Worker] = {}

    def feed(worker: _Worker) -> None:
        for index, item in todo:
            worker.send(index, item)
            busy[worker.connection] = worker
            return

    try:
        for worker in pool:
            feed(worker)
        while busy:
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                index, result = worker.index, worker.receive()
                if isinstance(result, WorkerDied):
                    pool.remove(worker)
                    worker.stop()
                    worker = _Worker(context, function)
                    pool.append(worker)
                feed(worker)
                yield index, result
    finally:
        for worker in pool:
            worker.stop()
