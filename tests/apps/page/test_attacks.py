"""Requests that the page must refuse, sent over the network as an attacker would."""

import io
import json
import os
import re
import socket
import struct
import sys
import threading
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

PASSWD = "root:"


def connect(page) -> socket.socket:
    address = urlsplit(page.address)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def send_raw(page, target: str, *, host: str | None = None, method: str = "GET", rest: bytes = b""):
    """Send a request whose target no client library has normalized; return status and answer."""
    with connect(page) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: {host or urlsplit(page.address).netloc}\r\n"
        connection.sendall(head.encode() + b"Connection: close\r\n" + (rest or b"\r\n"))
        answer = receive(connection)
    return int(answer.split()[1]), answer


def receive(connection) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """Write an image on the server that no visitor may see."""
    path = tmp_path_factory.mktemp("server") / "secret.png"
    Image.new("RGB", (64, 64), "red").save(path)
    return path


TARGETS = [
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/{cwd}/setup.py",
    "/{secret}",
    "/{package}",
    "/docs",
    "/openapi.json",
    "/../server.py",
    "/%2e%2e/server.py",
    "/..%2fserver.py",
    "/viewer.js/../../server.py",
    "/../../../../../../../etc/passwd",
    "/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/..%5c..%5c..%5cetc%5cpasswd",
    "//etc/passwd",
    "/viewer.js%00",
]


@pytest.mark.parametrize("target", TARGETS)
def test_files_of_the_server_are_not_served(page, secret, root, target):
    server = root / "eseg_d2/apps/page/server.py"
    target = target.format(secret=secret, cwd=os.getcwd(), package=server)
    for method in "GET", "HEAD":
        status, answer = send_raw(page, target, method=method)
        assert status in (400, 403, 404), answer[:300]
        for content in PASSWD.encode(), secret.read_bytes(), b"import":
            assert content not in answer


CROSS_SITE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    {"Sec-Fetch-Site": "none", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
@pytest.mark.parametrize("path", ["upload", "example", "views", "context", "download"])
def test_cross_site_request_is_refused(page, headers, path):
    answer = page.post(f"/{path}", headers=headers, content=b"{}")
    assert answer.status_code == 403 and "another site" in answer.text
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_cross_site_upload_is_refused_before_its_body_is_sent(page):
    rest = b"Sec-Fetch-Site: cross-site\r\nContent-Length: 100000\r\n\r\n"
    assert send_raw(page, "/upload", method="POST", rest=rest)[0] == 403


def test_same_origin_requests_are_accepted(page, picture):
    for headers in {"Sec-Fetch-Site": "same-origin"}, {"Origin": page.address}, {}:
        answer = page.post("/upload?threshold=0.5", content=picture, headers=headers)
        assert answer.status_code == 200


def test_foreign_host_header_is_refused_on_loopback(page):
    for host in "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80":
        assert send_raw(page, "/", host=host)[0] == 403
    assert send_raw(page, "/", host="localhost:1")[0] == 200


def test_forwarded_headers_are_ignored(page):
    names = "X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Prefix X-Forwarded-For Forwarded"
    headers = dict.fromkeys(names.split(), "evil.example")
    for path in "/", "/start", "/nowhere", "/viewer.js/":
        plain, forwarded = page.client.get(path), page.client.get(path, headers=headers)
        assert (plain.status_code, plain.content) == (forwarded.status_code, forwarded.content)
        assert "evil" not in str(forwarded.headers)


@pytest.mark.parametrize("times", [1, 10])
def test_large_upload_is_refused(page, times):
    large = bytes(times * (page.limits.max_upload + 1))
    answer = page.post("/upload", content=large)
    assert answer.status_code == 413 and "the limit is 0.2 MB" in answer.text


def test_large_upload_without_a_length_is_refused(page):
    def endless():
        for _ in range(100):
            yield bytes(65536)

    with suppress(httpx.TransportError):  # the server may close the connection before all is sent
        assert page.post("/upload", content=endless()).status_code == 413
    assert page.client.get("/").status_code == 200


def test_large_message_is_refused(page):
    assert page.post("/views", json={"token": "x" * 100_000}).status_code == 413
    status, _ = send_raw(page, "/views", method="POST", rest=b"Content-Length: -5\r\n\r\n")
    assert status in (400, 413)


def test_slow_uploads_do_not_lock_others_out(page, picture):
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(page)) for _ in range(3 * page.limits.waiting)]
        for connection in slow:
            head = f"POST /upload HTTP/1.1\r\nHost: {urlsplit(page.address).netloc}\r\n"
            connection.sendall(f"{head}Content-Length: {page.limits.max_upload}\r\n\r\n".encode())
            connection.sendall(bytes(1000))
        assert "views" in page.upload(picture)
        oldest = slow[0].recv(65536)
        assert b" 503 " in oldest and b"too many uploads" in oldest
    assert "views" in page.upload(picture)


def test_many_uploads_do_not_lock_others_out(page, picture):
    large = picture + bytes(page.limits.max_upload - len(picture))
    for _ in range(2 * page.limits.waiting):
        assert "views" in page.upload(large)


def test_client_that_disconnects_causes_no_traceback(page, picture, capfd):
    head = f"POST /upload?threshold=0.5 HTTP/1.1\r\nHost: {urlsplit(page.address).netloc}\r\n"
    for length, content in (100_000, b"x" * 1000), (len(picture), picture):
        with connect(page) as connection:
            connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + content)
    assert "views" in page.upload(picture)  # is answered after them
    written = capfd.readouterr()
    assert "Traceback" not in written.err + written.out and "Exception" not in written.err


def test_queue_is_bounded(page, picture):
    """While one request holds the model, as many as allowed wait and the rest are refused."""
    from eseg_d2.apps.page import service

    held, release = threading.Event(), threading.Event()
    answer = service.Service.answer

    def hold(self, name, request):
        held.set()
        assert release.wait(60)
        return answer(self, name, request)

    statuses, count = [], page.limits.waiting + 4
    refused = threading.Semaphore(0)

    def send():
        statuses.append(httpx.post(f"{page.address}/example", json={}, timeout=60).status_code)
        if statuses[-1] == 503:
            refused.release()

    service.Service.answer = hold
    try:
        threads = [threading.Thread(target=send) for _ in range(count)]
        for thread in threads:
            thread.start()
        assert held.wait(60)
        for _ in range(4):
            assert refused.acquire(timeout=60)
    finally:
        service.Service.answer = answer
        release.set()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [400] * page.limits.waiting + [503] * 4


def png_of(width: int, height: int) -> bytes:
    """Return a small PNG file whose header claims an image of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def encoded(size, kind, **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "white").save(file, kind, **options)
    return file.getvalue()


BAD = {
    "bomb.png": (png_of(60_000, 60_000), "limit of 178956970 pixels"),
    "large.png": (encoded((500, 300), "PNG"), "500 x 300 pixels"),
    "strip.png": (png_of(1, 33_000_000), "too long and thin: it has 1 x 33000000 pixels"),
    "line.png": (encoded((3300, 100), "PNG"), "too long and thin: it has 3300 x 100 pixels"),
    "cut.png": (encoded((100, 100), "PNG")[:100], "cut.png"),
    "text.jpg": (b"not an image\n" * 100, "is not an image"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "is not an image"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "is not an image"),
    "drawing.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    "book.pdf": (b"%PDF-1.4\n", "is not an image"),
    "empty.png": (b"", "empty"),
    "<b>.png": (b"text", "is not an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_error_about_an_upload_names_it_and_no_path_of_the_server(page, name):
    content, message = BAD[name]
    error = page.upload(content, name)["error"]
    assert message in error and name in error
    assert "/tmp" not in error and "eseg_d2_app" not in error


@pytest.mark.parametrize("name", ["../../../../tmp/evil.png", "/etc/evil.png", "..", "x" * 3000])
def test_name_of_a_download_contains_no_path(page, picture, name):
    file_name, _ = page.download(page.upload(picture, name)["token"], "json")
    assert "/" not in file_name and ".." not in file_name and len(file_name) < 100


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("example", {}),
        ("example", {"example": -1}),
        ("example", {"example": 10**9}),
        ("example", {"example": "../x"}),
        ("example", {"example": True}),
        ("example", {"example": 0, "threshold": "nan"}),
        ("example", {"example": 0, "threshold": 1.5}),
        ("views", {"token": "x"}),
        ("context", {"token": "x", "row": 1, "column": 1}),
        ("context", {"token": ["x"], "row": 1, "column": 1}),
        ("download", {"token": "../../etc/passwd", "what": "zip"}),
        ("download", {}),
    ],
)
def test_invalid_request_gets_an_error(page, path, message):
    answer = page.post(f"/{path}", json={"threshold": 0.5, **message})
    assert answer.status_code == 400 and answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"[" * 60_000, b"\xff", b'{"a":'])
def test_body_that_is_not_a_json_object_gets_an_error(page, body):
    answer = page.post("/views", content=body)
    assert answer.status_code == 400 and "json object" in answer.json()["error"]


def test_pixels_outside_the_image_and_unknown_downloads_get_an_error(page):
    token = page.ask("example", example=0)["token"]
    for row, column in (-1, 0), (64, 0), (0, 128), (0.5, 1), ("1", 1), (None, 1), (10**30, 1):
        answer = page.ask("context", token=token, row=row, column=column)
        assert "expected a whole number" in answer["error"]
    for what in "overlay/../x", "side_by_side", None, 3, ["zip"], {}:
        assert "expected one of" in page.ask("download", token=token, what=what)["error"]


def test_paths_of_the_server_are_not_revealed(page, panoptic_model):
    config, _, weights = panoptic_model
    revealed = page.client.get("/").text + json.dumps(page.client.get("/start").json())
    for path in config, weights, os.getcwd(), str(Path.home()) + "/":
        assert path not in revealed
    assert Path(weights).name in revealed


def test_page_loads_nothing_from_other_servers(page):
    for path in "/", "/start", "/nowhere", "/upload":
        headers = page.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and not re.search(r"http|\*|unsafe", policy)
        assert headers["x-content-type-options"] == "nosniff"
    for path in "/", "/viewer.css", "/viewer.js":
        assert not re.search(r"@import|url\(|https?:", page.client.get(path).text)


def test_server_connects_to_this_machine_only(open_page, semantic_model, picture):
    contacted, watching = [], [True]

    def note(event, arguments):
        if watching and event in ("socket.connect", "socket.getaddrinfo"):
            contacted.append(arguments[1] if event == "socket.connect" else arguments)

    sys.addaudithook(note)  # cannot be removed, hence the switch
    page = open_page(semantic_model)
    assert "views" in page.upload(picture)
    page.client.get("/")
    watching.clear()
    assert contacted
    assert {address[0] for address in contacted} <= {"127.0.0.1", "localhost", None}


def test_server_listens_on_loopback_only(page):
    port = urlsplit(page.address).port
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port)}
    others.add("127.0.0.2")  # is refused as well, unless the server listens on all addresses
    for address in others:
        if address not in ("127.0.0.1", "::1"):
            with pytest.raises(OSError):
                socket.create_connection((address, port), timeout=2)
