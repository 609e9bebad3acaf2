"""Each process of a run learns at once when another one ends too early.

Without it, those that wait for a dead process wait for half an hour (NCCL) or end with an error
that does not say why (gloo). Every process keeps a TCP connection to the first one, which the
kernel closes when its process ends in whatever way.
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

__all__ = ["PeerWatch", "is_connection_error"]

logger = logging.getLogger(__name__)

DONE = b"d"
GRACE = 10.0  # seconds
# Seconds: a machine that is gone without a word is noticed after IDLE + 3 * INTERVAL.
IDLE, INTERVAL = 15, 10


class PeerWatch:
    """A context manager around a run of several processes.

    If one ends before it has left the context without an exception, the others say so and end with
    status 1, whatever they are doing.
    """

    def __init__(self, url: str, output_dir: str):
        """
        Args:
            url: where the processes met; its host is the first one's.
            output_dir: of the run, for the message.
        """
        self._host = urlparse(url).hostname or os.environ.get("MASTER_ADDR", "127.0.0.1")
        self._output_dir = output_dir
        self._connections: list[socket.socket] = []
        self._ending = False

    def __enter__(self) -> "PeerWatch":
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
            connection.settimeout(None)
            connection.sendall(rank.to_bytes(4, "big"))
            self._watch(connection, 0)
        comm.synchronize()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None:
            if issubclass(kind, RuntimeError) and is_connection_error(error):
                time.sleep(GRACE)  # the end of another process has caused it: let that be said
            return  # the connections close with the process, and the others learn it
        self._ending = True
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.sendall(DONE)

    def _watch(self, connection: socket.socket, peer: int) -> None:
        options = {"TCP_KEEPIDLE": IDLE, "TCP_KEEPINTVL": INTERVAL, "TCP_KEEPCNT": 3}
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if hasattr(socket, name):  # Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connections.append(connection)
        threading.Thread(target=self._listen, args=(connection, peer), daemon=True).start()

    def _listen(self, connection: socket.socket, peer: int) -> None:
        try:
            received = connection.recv(1)
        except OSError:
            received = b""
        if received == DONE or self._ending:
            return
        message = (
            f"process {peer} of this run has ended too early (its own output says why; if it says "
            f"nothing, it was killed), so process {comm.get_rank()} ends, too. The last checkpoint "
            f"in {self._output_dir} is kept: start all processes again with --resume."
        )
        logger.error(message)
        print(f"train_net.py: {message}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(1)


def is_connection_error(error: BaseException) -> bool:
    """Whether an exchange between the processes has failed, as it does when one of them ends."""
    words = ("closed by peer", "reset by peer", "gloo", "NCCL", "Broken pipe")
    return comm.get_world_size() > 1 and any(word in str(error) for word in words)
