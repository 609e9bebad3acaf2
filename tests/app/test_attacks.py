"""What the page must refuse, sent over the network as an attacker would."""

import io
import json
import os
import re
import socket
import struct
import sys
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

API = "/gradio_api"
PASSWD = "root:"


def raw(page, target: str, *, host: str | None = None, method: str = "GET", rest: bytes = b""):
    """The answer to a request whose target no client library has cleaned."""
    address = urlsplit(page.address)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: {host or address.netloc}\r\n"
        connection.sendall(head.encode() + b"Connection: close\r\n" + (rest or b"\r\n"))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    answer = b"".join(parts)
    return int(answer.split()[1]), answer


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """An image of the server that no visitor may see."""
    path = tmp_path_factory.mktemp("server") / "secret.png"
    Image.new("RGB", (64, 64), "red").save(path)
    return path


TARGETS = [
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "{api}/file=/etc/passwd",
    "{api}/file=../../../../../../etc/passwd",
    "{api}/file=..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "{api}/file=%2Fetc%2Fpasswd",
    "{api}/file=file:///etc/passwd",
    "{api}/file={secret}",
    "{api}/file={cwd}/setup.py",
    "{api}/file=http://127.0.0.1:{port}/config",
    "{api}/file//etc/passwd",
    "{api}/proxy=http://127.0.0.1:{port}/config",
    "{api}/stream/x/y/1/playlist-file",
    "{api}/deep_link?session_hash=x",
    "{api}/info",
    "{api}/openapi.json",
    "{api}/custom_component/1/client/component/../../../../etc/passwd",
    "/docs",
    "/openapi.json",
    "/monitoring",
    "/assets/../../../../../../../etc/passwd",
    "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/static//etc/passwd",
    "/assets/..%5c..%5c..%5cetc%5cpasswd",
    "//etc/passwd",
    "/svelte/../../../etc/passwd",
]


@pytest.mark.parametrize("target", TARGETS)
def test_no_file_of_the_server(page, secret, target):
    port = urlsplit(page.address).port
    target = target.format(api=API, secret=secret, cwd=os.getcwd(), port=port)
    for method in "GET", "HEAD":
        status, answer = raw(page, target, method=method)
        assert status in (400, 403, 404), answer[:300]
        assert PASSWD.encode() not in answer and secret.read_bytes() not in answer


def test_an_upload_cannot_be_read_again(page, picture):
    path = page.upload(picture)
    status, answer = raw(page, f"{API}/file={path}")
    assert status == 404 and picture not in answer


def test_paths_of_the_server_are_no_uploads(page, secret, picture):
    upload = Path(page.upload(picture))
    link = upload.parent / "link.png"
    link.symlink_to(secret)
    outside = upload.parent / ".." / ".." / ".." / str(secret)[1:]
    for path in ("/etc/passwd", str(secret), "../etc/passwd", f"{upload}/../../../etc/passwd"):
        assert_refused(page, path)
    for path in (str(link), str(outside), str(upload.parent), "/dev/zero", "", None, 5, ["/x"]):
        assert_refused(page, path)
    file_data = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    assert page.ask("predict", {"upload": file_data})["kind"] == "error"
    assert_refused(page, "a\0b")
    assert secret.exists()


def assert_refused(page, path):
    answer = page.ask("predict", {"upload": path, "name": "x"})
    assert answer["kind"] == "error", path
    assert answer["text"] == "this is no file that you uploaded; upload it again"


def test_file_data_as_input_is_not_opened(page, secret):
    body = {
        "data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}],
        "fn_index": 0,
        "session_hash": "x",
    }
    for route in f"{API}/run/predict", f"{API}/call/predict", f"{API}/component_server":
        assert page.client.post(route, json=body).status_code == 404
    before = {path for path in page.folder.rglob("*") if path.is_file()}
    page.client.post(f"{API}/queue/join", json=body)
    time.sleep(1)
    assert {path for path in page.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name",
    ["../../../../tmp/evil.png", "/etc/evil.png", "..", "a/../../b.png", "\x1b[31m.png", "x" * 300],
)
def test_names_of_uploads_do_not_leave_the_folder(page, picture, name):
    files = {"files": (name, picture)}
    answer = page.client.post(f"{API}/upload", files=files)
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().parent.parent == page.folder
        Path(path).unlink()


def test_a_large_upload_is_refused(page):
    before = {path for path in page.folder.rglob("*") if path.is_file()}
    large = bytes(page.limits.max_upload + 1)
    answer = page.client.post(f"{API}/upload", files={"files": ("a.png", large)})
    assert answer.status_code == 413
    huge = bytes(10 * page.limits.max_upload)
    answer = page.client.post(f"{API}/upload", files={"files": ("a.png", huge)})
    assert answer.status_code == 413
    left = {path for path in page.folder.rglob("*") if path.is_file()} - before
    assert sum(path.stat().st_size for path in left) <= page.limits.max_upload


def test_a_large_upload_without_a_length_is_refused(page):
    def endless():
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        yield head
        for _ in range(100):
            yield bytes(65536)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    try:
        status = page.client.post(f"{API}/upload", content=endless(), headers=headers).status_code
    except Exception as error:  # the server may close before all is sent
        assert type(error).__name__ in ("WriteError", "ReadError", "RemoteProtocolError")
    else:
        assert status == 413


def test_a_large_message_is_refused(page):
    body = {"data": [], "event_data": "x" * 100_000, "fn_index": 0, "session_hash": "x"}
    assert page.client.post(f"{API}/queue/join", json=body).status_code == 413
    status, _ = raw(page, f"{API}/queue/join", method="POST", rest=b"Content-Length: -5\r\n\r\n")
    assert status in (400, 413)


def test_uploads_do_not_fill_the_disk(page, picture):
    content = picture + bytes(page.limits.max_upload - len(picture))
    statuses = []
    for i in range(30):
        answer = page.client.post(f"{API}/upload", files={"files": (f"{i}.png", content)})
        statuses.append(answer.status_code)
    assert statuses[0] == 200 and statuses[-1] == 503
    from eseg_d2.app.safety import remove_old

    assert remove_old(page.folder, -1) == 0
    assert page.client.post(f"{API}/upload", files={"files": ("a.png", content)}).status_code == 200


def png_of(width: int, height: int) -> bytes:
    """A few bytes that claim to be so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def saved(size, kind, **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "white").save(file, kind, **options)
    return file.getvalue()


BAD = {
    "bomb.png": (png_of(60_000, 60_000), "pixels"),
    "large.png": (saved((500, 300), "PNG"), "pixels"),
    "cut.png": (saved((100, 100), "PNG")[:100], "cut.png"),
    "text.jpg": (b"not an image\n" * 100, "is no image"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "is no image"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "is no image"),
    "drawing.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
    "book.pdf": (b"%PDF-1.4\n", "is no image"),
    "empty.png": (b"", "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_is_said_by_its_name_alone(page, name):
    content, message = BAD[name]
    answer = page.ask("predict", {"upload": page.upload(content, name), "name": name})
    assert answer["kind"] == "error"
    assert message in answer["text"] and name in answer["text"]
    assert str(page.folder) not in answer["text"]


@pytest.mark.parametrize(
    ("event", "request_"),
    [
        ("predict", {}),
        ("predict", None),
        ("predict", [1, 2]),
        ("predict", {"example": -1}),
        ("predict", {"example": 10**9}),
        ("predict", {"example": "../x"}),
        ("predict", {"example": True}),
        ("context", {"token": "x", "row": 1, "column": 1}),
        ("context", {"token": ["x"], "row": 1, "column": 1}),
        ("download", {"token": "../../etc/passwd", "what": "zip"}),
        ("download", {}),
    ],
)
def test_odd_requests_are_answered(page, event, request_):
    assert page.ask(event, request_)["kind"] == "error"


def test_pixels_and_files_that_are_not_there(page):
    token = page.ask("predict", {"example": 0})["token"]
    for row, column in (-1, 0), (64, 0), (0, 128), (0.5, 1), ("1", 1), (None, 1), (10**30, 1):
        answer = page.ask("context", {"token": token, "row": row, "column": column})
        assert answer["kind"] == "error" and "expected a whole number" in answer["text"]
    for what in "overlay/../x", "side_by_side", None, 3, ["zip"], {}:
        answer = page.ask("download", {"token": token, "what": what})
        assert answer["kind"] == "error" and "expected one of" in answer["text"]


def test_nothing_of_the_server_is_told(page, panoptic_model):
    config, overrides, weights = panoptic_model
    told = page.client.get("/").text + json.dumps(page.config())
    for path in config, weights, str(page.folder), os.getcwd(), str(Path.home()) + "/":
        assert path not in told


def test_no_other_server_is_asked(page):
    answer = page.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "http" not in policy and "*" not in policy and "default-src 'self'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    theme = page.client.get("/theme.css").text
    assert "@import" not in theme and not re.search(r"url\(\W*(http|//)", theme)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_the_server_connects_to_this_machine_alone(open_page, semantic_model, picture):
    asked, watching = [], [True]

    def note(event, arguments):
        if watching and event in ("socket.connect", "socket.getaddrinfo"):
            asked.append(arguments[1] if event == "socket.connect" else arguments)

    sys.addaudithook(note)  # stays for good, so it can be told to end
    page = open_page(semantic_model)
    page.ask("predict", {"upload": page.upload(picture)})
    page.client.get("/")
    watching.clear()
    assert asked
    assert {address[0] for address in asked} <= {"127.0.0.1", "localhost", None}


def test_another_host_is_refused_on_loopback(page):
    assert raw(page, "/", host="evil.example")[0] == 403
    assert raw(page, "/", host="127.0.0.1.evil.example")[0] == 403
    assert raw(page, "/", host="localhost:1")[0] == 200


def test_it_listens_on_loopback_alone(page):
    port = urlsplit(page.address).port
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)}
    for address in others:
        if not address.startswith("127.") and address != "::1":
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2)


def test_folder_is_private(page):
    assert page.folder.stat().st_mode & 0o077 == 0
