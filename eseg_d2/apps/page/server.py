"""The server of the page: few routes, small bodies, and nothing for the pages of other sites."""

import asyncio
import json
import re
import socket
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from eseg_d2.apps.page.service import Service

__all__ = ["build_app", "is_loopback", "listen", "make_server", "serve"]

_MAX_MESSAGE = 2**16  # bytes of a request that is no upload
_PORTS = range(7860, 7960)
_HEADERS = {
    # the browser itself then refuses any other server
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; "
    b"object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to a host."""
    return host == "localhost" or host.startswith("127.")


def build_app(service: Service, *, host: str) -> Starlette:
    """Build the page as an ASGI application.

    Args:
        service: the model behind it, and the limits of uploads.
        host: the server listens on it. On loopback, requests under another name are refused.
    """
    desk = _Desk(service)
    routes = [
        Route("/start", lambda _: JSONResponse(service.start())),
        Route("/upload", desk.upload, methods=["POST"]),
        *(
            Route(f"/{name}", partial(desk.message, name), methods=["POST"])
            for name in ("example", "views", "context", "download")
        ),
        Mount("/", StaticFiles(directory=Path(__file__).parent / "static", html=True)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, local_only=is_loopback(host))],
        exception_handlers={
            HTTPException: lambda _, e: JSONResponse({"error": e.detail}, e.status_code),
            ClientDisconnect: lambda *_: Response(status_code=499),  # nobody will read it
        },
    )


def listen(host: str, port: int | None) -> socket.socket:
    """Open the server's socket.

    Args:
        host: any other than loopback lets others in, and a warning says so.
        port: None takes a free one from 7860 on.

    Raises:
        OSError: the port is taken, or the host does not belong to this machine.
    """
    if not is_loopback(host):
        print(
            f"Warning: listening on {host}: everybody who reaches this machine can use the page. "
            "It has no password and no encryption; put a server with both in front of it.",
            file=sys.stderr,
        )
    for candidate in _PORTS if port is None else [port]:
        try:
            return socket.create_server((host, candidate))
        except (OSError, OverflowError) as e:
            reason = getattr(e, "strerror", None) or e
    raise OSError(f"cannot listen on {host}, port {candidate}: {reason}. Choose another.")


def make_server(app: Starlette) -> uvicorn.Server:
    """Make a server that trusts no header about the client or its address."""
    config = uvicorn.Config(
        app,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    host, port = listening.getsockname()
    print(f"The page is at http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
    make_server(app).run(sockets=[listening])


class _Guard:
    """ASGI middleware: refuses a request by its headers, before any of its body is read.

    - On loopback a Host that is not this machine, so that a site whose name resolves to 127.0.0.1
      cannot talk to the page.
    - A request that a browser sends for the page of another site: Sec-Fetch-Site says so, or Origin
      where it is not sent (older browsers, and http from another machine). Programs send neither.
    """

    def __init__(self, app, *, local_only: bool):
        self.app, self.local_only = app, local_only

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS.items()]}
            await send(message)

        refusal = self._refusal(scope)
        app = PlainTextResponse(refusal, 403) if refusal else self.app
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope) -> str | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.local_only and not re.fullmatch(r"(localhost|127(\.\d+){3})(:\d+)?", host):
            return "this page is for the machine that it runs on"
        if scope["method"] in ("GET", "HEAD"):
            return None
        site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        own = site == "same-origin" if site else origin in ("", f"http://{host}", f"https://{host}")
        return None if own else "this request comes from another site's page"


class _Desk:
    """Receives requests, and passes them to the service one at a time.

    If too many uploads are in progress, the oldest is dropped, so that nobody can hold all places
    by sending slowly. A request whose client has left before its turn is dropped.
    """

    def __init__(self, service: Service):
        self.service = service
        self.turn = asyncio.Lock()
        self.waiting = 0
        self.uploads: list[asyncio.Task] = []

    async def upload(self, request: Request) -> Response:
        """Answer a request whose body is a file; its name and the threshold are in the query."""
        reading = asyncio.create_task(_read(request, self.service.limits.max_upload))
        self.uploads.append(reading)
        if len(self.uploads) > self.service.limits.waiting:
            self.uploads[0].cancel()
        try:
            content = await reading
        except asyncio.CancelledError:
            raise HTTPException(503, "too many uploads at a time; try again") from None
        finally:
            self.uploads.remove(reading)
        query = request.query_params
        asked = {"name": query.get("name"), "threshold": query.get("threshold"), "image": content}
        return await self._answer(request, "upload", asked)

    async def message(self, name: str, request: Request) -> Response:
        """Answer a request whose body is a json object."""
        body = await _read(request, _MAX_MESSAGE)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise HTTPException(400, "expected a json object")
        return await self._answer(request, name, asked)

    async def _answer(self, request: Request, name: str, asked: dict) -> Response:
        if self.waiting >= self.service.limits.waiting:
            raise HTTPException(503, "too many requests are waiting for the model; try again")
        self.waiting += 1
        try:
            async with self.turn:
                if await request.is_disconnected():
                    raise ClientDisconnect
                status, answer = await run_in_threadpool(self.service.answer, name, asked)
        finally:
            self.waiting -= 1
        if isinstance(answer, dict):
            return JSONResponse(answer, status)
        file_name, content = answer
        disposition = f"attachment; filename*=UTF-8''{quote(file_name)}"
        return Response(content, headers={"content-disposition": disposition})


async def _read(request: Request, limit: int) -> bytes:
    """The body, of at most ``limit`` bytes, whether or not its length was announced."""
    refused = HTTPException(413, f"too large; the limit is {limit / 1e6:.3g} MB")
    if int(request.headers.get("content-length", 0)) > limit:
        raise refused
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise refused
    return bytes(body)
