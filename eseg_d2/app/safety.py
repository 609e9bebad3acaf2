"""What the page's server lets through: few routes, small bodies, its own folder, no network."""

import os
import re
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Guard", "Limits", "is_loopback", "private_folder", "remove_old", "uploaded_file"]

# All that the page asks for. Gradio has many more: files by path, a proxy, recordings, deep links.
_API = "/gradio_api"
_ALLOWED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
        r"|/(assets|static)(/\w[\w.-]*)+"
        rf"|{_API}/(startup-events|queue/data|heartbeat/\w+)"
    ),
    "POST": re.compile(rf"{_API}/(upload|queue/join)"),
}
_UPLOAD = f"{_API}/upload"
_MAX_MESSAGE = 2**16  # bytes of a request that is no upload
_FORM = 2**16  # bytes that a form adds to its file
_MAX_AGE = 600  # seconds until an upload that nobody asked about is removed
_UPLOADS_KEPT = 20  # of full size
_HEADERS = [
    # the browser itself refuses any other server, whatever Gradio's scripts ask for; Gradio makes
    # functions from strings
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        b"connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        b"frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Limits:
    """What a visitor may send.

    Attributes:
        max_upload: bytes of a file.
        max_pixels: of an image; looked at before it is decoded.
        waiting: requests in the queue; more are refused.
    """

    max_upload: int = 20_000_000
    max_pixels: int = 2**25
    waiting: int = 16

    def __post_init__(self):
        for name in "max_upload", "max_pixels", "waiting":
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    return host == "localhost" or host.startswith("127.")


def private_folder() -> Path:
    """A new folder for Gradio's temporary files, which other users cannot read.

    Also turns off what Gradio would send anywhere. Call it before Gradio is imported.
    """
    folder = Path(tempfile.mkdtemp(prefix="eseg_d2_app_")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    return folder


def uploaded_file(folder: Path, path: object) -> Path:
    """The file behind a path that a visitor sent.

    Args:
        folder: that uploads are in.
        path: anything; untrusted.

    Raises:
        ValueError: it is not the path of an upload. The message does not repeat it.
    """
    refused = ValueError("this is no file that you uploaded; upload it again")
    if not isinstance(path, str) or "\0" in path:
        raise refused
    file = Path(path)
    # resolve() follows links and takes out "..": what differs after it is not what we made
    if file.parent.parent != folder or file.resolve() != file or not file.is_file():
        raise refused
    return file


def remove_old(folder: Path, seconds: float = _MAX_AGE) -> int:
    """Remove what is older from a folder; returns the bytes that are left."""
    left, now = 0, time.time()
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folders
        try:
            status = path.lstat()
            old = now - status.st_mtime > seconds
            if stat.S_ISDIR(status.st_mode):
                if old and not any(path.iterdir()):
                    path.rmdir()
            elif old:
                path.unlink()
            else:
                left += status.st_size
        except OSError:  # a request removed it, or put something into it, meanwhile
            continue
    return left


class _TooMuch(Exception):
    pass


class Guard:
    """ASGI middleware: refuses all that the page itself does not ask for.

    - Routes that are not on the list: 404. Gradio's files by path, proxy and recordings are not.
    - A body that is too large: 413, also where no length was announced.
    - More uploads than can be kept: 503.
    - On loopback a Host that is not this machine: 403, so that a site whose name resolves to
      127.0.0.1 cannot talk to the page.
    """

    def __init__(self, app: Callable[..., Awaitable], *, folder: Path, limits: Limits, host: str):
        self.app, self.folder, self.limits = app, folder, limits
        self.local_only = is_loopback(host)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket; the page has none
            await send({"type": "websocket.close"})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        started = False

        async def send_with_headers(message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        try:
            await self.app(scope, self._counting(scope, receive), send_with_headers)
        except _TooMuch:
            if not started:
                await _answer(send, 413, "too large")

    def _refusal(self, scope) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if self.local_only and not _is_local(headers.get(b"host", b"")):
            return 403, "this page is for the machine that it runs on"
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        allowed = _ALLOWED.get(method)
        path = scope["path"]
        if allowed is None or ".." in path or not allowed.fullmatch(path):
            return 404, "not found"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_body(scope):
            return 413, "too large"
        if path == _UPLOAD and remove_old(self.folder) > _UPLOADS_KEPT * self.limits.max_upload:
            return 503, "too many uploads, try again later"
        return None

    def _max_body(self, scope) -> int:
        is_upload = scope["path"] == _UPLOAD
        return self.limits.max_upload + _FORM if is_upload else _MAX_MESSAGE

    def _counting(self, scope, receive):
        left = self._max_body(scope)

        async def counting():
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooMuch
            return message

        return counting


def _is_local(host: bytes) -> bool:
    return re.fullmatch(rb"(localhost|127\.\d+\.\d+\.\d+)(:\d+)?", host) is not None


async def _answer(send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
