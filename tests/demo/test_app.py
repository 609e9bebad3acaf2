"""demo/app.py, run as a command: its errors, and that it leaves no files behind."""

import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from commands import python, started


def command(model, *rest):
    config, overrides, weights = model
    options = ("--config-file", config, "--weights", weights, *rest)
    return ["demo/app.py", *options, "--opts", *overrides]


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
def test_error_is_one_line_and_leaves_no_folder(root, semantic_model, tmp_path, options, message):
    done = python(*command(semantic_model, *options), cwd=root, TMPDIR=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("app.py: ")
    assert message in done.stderr
    assert not list(tmp_path.glob("eseg_d2_app_*"))


def test_page_is_served_until_the_process_is_terminated(root, semantic_model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = command(semantic_model, "--host", "0.0.0.0", "--port", port)
    with started(*words, cwd=root, output=tmp_path, TMPDIR=tmp_path) as process:
        address = wait_for_address(tmp_path, process)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        page = opener.open(address, timeout=30).read().decode()
        assert "Choose an image" in page and semantic_model[2] not in page
        assert "Warning: listening on 0.0.0.0: everybody" in output_of(tmp_path)
        about = opener.open(address + "start", timeout=30).read().decode()
        assert "semantic_fpn_R50 (" in about and "weights model.pth" in about
        process.terminate()
        process.join(30)
    assert not list(tmp_path.glob("eseg_d2_app_*"))
    assert "Traceback" not in output_of(tmp_path)


def output_of(folder: Path) -> str:
    return (folder / "out").read_text() + (folder / "err").read_text()


def wait_for_address(folder: Path, process) -> str:
    """Wait until the page is served, and return its address."""
    for _ in range(600):
        if found := re.search(r"The page is at (\S+)", output_of(folder)):
            return found[1]
        assert process.is_alive(), output_of(folder)
        time.sleep(0.2)
    raise AssertionError(output_of(folder))
