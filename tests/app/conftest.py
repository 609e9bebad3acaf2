"""The page of a small model, on a free port of this machine."""

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

API = "/gradio_api"


@dataclass
class Page:
    """A running page, and a visitor without a browser."""

    address: str
    folder: Path
    limits: object
    client: httpx.Client

    def upload(self, content: bytes, name: str = "street.png") -> str:
        """The path that the server names."""
        answer = self.client.post(f"{API}/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def ask(self, event: str, request, data=()) -> dict:
        """Trigger an event as the page's script does; the message that comes back."""
        events = [d["targets"][0][1] for d in self.config()["dependencies"]]
        session = uuid.uuid4().hex
        body = {
            "data": list(data),
            "event_data": request,
            "fn_index": events.index(event),
            "session_hash": session,
        }
        joined = self.client.post(f"{API}/queue/join", json=body)
        assert joined.status_code == 200, joined.text
        url = f"{API}/queue/data?session_hash={session}"
        with self.client.stream("GET", url, timeout=60) as lines:
            for line in lines.iter_lines():
                message = json.loads(line[6:]) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed":
                    if not message["success"]:  # refused by Gradio before it came to us
                        return {"kind": "error", "text": str(message["output"])}
                    return json.loads(message["output"]["data"][0])
        raise AssertionError("no answer")

    def config(self) -> dict:
        return self.client.get("/config").json()


@pytest.fixture(scope="session")
def open_page(tmp_path_factory):
    """A function that starts the page of a model: (config file, overrides, weights), examples."""
    pytest.importorskip("gradio")
    from eseg_d2 import Predictor
    from eseg_d2.app.page import build_page, serve
    from eseg_d2.app.safety import Limits, private_folder
    from eseg_d2.app.service import Service

    opened = []
    environment = dict(os.environ)

    def start(model, examples=None):
        config, overrides, weights = model
        folder = private_folder()
        limits = Limits(max_upload=200_000, max_pixels=100_000)
        predictor = Predictor(config, weights, overrides=overrides)
        service = Service(predictor, folder=folder, limits=limits, examples=examples)
        page = build_page(service)
        address = serve(
            page, folder=folder, limits=limits, host="127.0.0.1", port=None, block=False
        )
        client = httpx.Client(base_url=address, timeout=60, trust_env=False)
        opened.append((page, client, folder))
        return Page(address, folder, limits, client)

    yield start
    for page, client, folder in opened:
        client.close()
        page.close()
        shutil.rmtree(folder, ignore_errors=True)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def page(open_page, panoptic_model, scene):
    """Of a panoptic model with an RSP head, with examples."""
    return open_page(panoptic_model, Path(scene).parent)


@pytest.fixture(scope="session")
def picture(scene):
    """The bytes of a street scene's png."""
    return Path(scene).read_bytes()
