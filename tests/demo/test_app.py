"""app.py as a command: its errors, and that nothing stays behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest


def command(root, model, *rest):
    config, overrides, weights = model
    options = ("--config-file", config, "--weights", weights, *map(str, rest))
    return [sys.executable, str(root / "demo/app.py"), *options, "--opts", *overrides]


def environment(folder):
    return {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--examples", "nowhere"), "no file, folder or match"),
        (("--max-upload-mb", "0"), "max_upload is 0; expected 1 or more"),
        (("--max-pixels", "-1"), "max_pixels is -1"),
        (("--host", "192.0.2.1", "--port", "7999"), "cannot listen on 192.0.2.1, port 7999"),
        (("--port", "99999"), "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_errors(root, semantic_model, tmp_path, options, message):
    done = subprocess.run(
        command(root, semantic_model, *options),
        capture_output=True,
        text=True,
        env=environment(tmp_path),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("app.py: ")
    assert message in done.stderr
    assert not list(tmp_path.glob("eseg_d2_app_*"))


def test_it_serves_until_it_is_told_to_end(root, semantic_model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(root, semantic_model, "--host", "0.0.0.0", "--port", port),
            stdout=output,
            stderr=output,
            env=environment(tmp_path),
        )
    try:
        address = wait_for(log, process)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        page = opener.open(address, timeout=30).read().decode()
        assert "Choose an image" in page and semantic_model[2] not in page
        assert "Warning: listening on 0.0.0.0: everybody" in log.read_text()
        about = opener.open(address + "start", timeout=30).read().decode()
        assert "semantic_fpn_R50 (" in about and "weights model.pth" in about
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert not list(tmp_path.glob("eseg_d2_app_*"))
    assert "Traceback" not in log.read_text()


def wait_for(log: Path, process) -> str:
    for _ in range(600):
        if found := re.search(r"The page is at (\S+)", log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())
