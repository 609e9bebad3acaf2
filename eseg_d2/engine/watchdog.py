"""Detect in each process of a run that another one has died or hangs.

Without it, processes that wait for such a process wait for half an hour (NCCL), or end with an
error that does not name the cause (gloo). Every process keeps a TCP connection to the first one.
The kernel closes it however the process ends, and both sides send heartbeats.
"""

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from urllib.parse import urlparse

from detectron2.utils import comm

from eseg_d2.engine.signals import Stopped, is_training, requested

__all__ = ["Watchdog", "is_connection_error"]

logger = logging.getLogger(__name__)

ALIVE, DONE = b"a", b"d"
GRACE = 10.0  # seconds
PERIOD = 5.0  # seconds between heartbeats
UNREACHABLE = 45000  # milliseconds until a machine that vanished silently counts as dead


class Watchdog:
    """A context manager around the run that ends this process when another one is gone.

    If a process ends before it has left the context without an exception, or sends no heartbeats,
    the others log it and exit with status 1, whatever they are doing.
    """

    def __init__(self, url: str, output_dir: str, limit: float):
        """
        Args:
            url: where the processes met; its host is that of the first process.
            output_dir: folder of the run, for the message.
            limit: seconds without a heartbeat after which a process counts as gone.
        """
        self._host = urlparse(url).hostname or os.environ.get("MASTER_ADDR", "127.0.0.1")
        self._output_dir = output_dir
        self._limit = limit
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
