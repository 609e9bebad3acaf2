"""The page of a small model, served on a free local port."""

import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest


@dataclass
class Page:
    """A running page and an HTTP client that visits it."""

    address: str
    limits: object
    client: httpx.Client

    def post(self, path: str, **options) -> httpx.Response:
        return self.client.post(path, **options)

    def upload(self, content: bytes, name: str = "street.png", threshold=0.0) -> dict:
        """Upload an image and return the answer."""
        query = {"name": name, "threshold": threshold}
        return self.post("/upload", params=query, content=content).json()

    def ask(self, path: str, **message) -> dict:
        """Send a message and return the answer."""
        return self.post(f"/{path}", json={"threshold": 0.0, **message}).json()

    def download(self, token: str, what: str, threshold: float = 0.0) -> tuple[str, bytes]:
        """Return the name and content of a file."""
        message = {"token": token, "what": what, "threshold": threshold}
        answer = self.post("/download", json=message)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"].startswith("attachment; ")
        return unquote(answer.headers["content-disposition"].split("''")[1]), answer.content


@pytest.fixture(scope="session")
def open_page():
    """Return a function that serves the page of a model (config file, overrides, weights)."""
    pytest.importorskip("starlette")
    from eseg_d2 import Predictor
    from eseg_d2.apps.page.limits import Limits
    from eseg_d2.apps.page.server import build_app, listen, make_server
    from eseg_d2.apps.page.service import Service

    opened = []

    def start(model, examples=None):
        config, overrides, weights = model
        limits = Limits(max_upload=200_000, max_pixels=100_000)
        predictor = Predictor(config, weights, overrides=overrides)
        service = Service(predictor, name="a model", limits=limits, examples=examples)
        listening = listen("127.0.0.1", None)
        server = make_server(build_app(service, host="127.0.0.1"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        client = httpx.Client(base_url=address, timeout=60, trust_env=False)
        opened.append((server, thread, client))
        return Page(address, limits, client)

    yield start
    for server, thread, client in opened:
        client.close()
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def page(open_page, panoptic_model, scene):
    """Serve the page of a panoptic model with an RSP head, with example images."""
    return open_page(panoptic_model, Path(scene).parent)


@pytest.fixture(scope="session")
def picture(scene):
    """Return the bytes of a street scene's PNG file."""
    return Path(scene).read_bytes()
