"""Visitors that occupy both servers without a request, or without reading: others are served at once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from bothends.impair.api_server import ApiServer
from tests.hostile.api.calls import call, exchange, running_api
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running

# Far below the timeouts of both servers, so that only an eviction can make room in time.
SOON = 5.0
GET_VERSION = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def visitors(
    port: int, count: int, data: bytes = b"", *, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """Connect `count` times, send `data` each time, and read nothing."""
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            if receive_buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.connect(("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):  # it has been closed for another already
                client.sendall(data)
            clients.append(client)
        yield clients


def read_response(client: socket.socket) -> bytes:
    """Read one response of `/version`, on a connection that stays open."""
    client.settimeout(20)
    received = b""
    while not received.endswith(b"}\n") and (data := client.recv(10_000)):
        received += data
    return received


@pytest.mark.parametrize(
    "data", [b"", b"GET /vers", GET_VERSION], ids=["nothing", "half a request", "a request"]
)
def test_idle_visitors_do_not_lock_the_api(data: bytes) -> None:
    with running_api() as api, visitors(api.port, 260, data):
        started = time.monotonic()
        for _ in range(5):
            assert call(api.port, "GET", "/version")[0] == 200
        assert time.monotonic() - started < SOON


def test_visitors_that_do_not_read_do_not_lock_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{ApiServer.__module__}._MAX_PER_PEER", 8)
    proxies = [{"name": f"p{n}", "upstream": "a:1", "enabled": False} for n in range(50)]
    stream = (
        b"GET /proxies HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    )  # more responses than the kernel buffers
    with running_api() as api:
        call(api.port, "POST", "/populate", proxies)
        with visitors(api.port, 8, stream, receive_buffer=1024):
            assert call(api.port, "GET", "/version")[0] == 200


def test_connection_without_a_request_is_closed_first() -> None:
    with running_api() as api, visitors(api.port, 1, GET_VERSION) as (served,):
        assert read_response(served).startswith(b"HTTP/1.1 200")
        with visitors(api.port, 200):
            assert call(api.port, "GET", "/version")[0] == 200
            served.sendall(GET_VERSION)
            assert read_response(served).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_all_answered_in_order() -> None:
    with running_api() as api:
        methods = [b"GET" if n % 3 else b"HEAD" for n in range(300)]
        stream = b"".join(b"%b /version HTTP/1.1\r\nHost: localhost\r\n\r\n" % each for each in methods)
        last = b"GET /nosuch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", api.port), 20) as client:
            client.sendall(stream + last + GET_VERSION)
            received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200") == 300
    assert received.count(b'{"version"') == methods.count(b"GET")
    assert received.rindex(b"HTTP/1.1 404") > received.rindex(b"HTTP/1.1 200")


def test_request_must_be_complete_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{ApiServer.__module__}._REQUEST_TIMEOUT", 0.2)
    with (
        running_api() as api,
        visitors(api.port, 1, GET_VERSION) as (client,),
        visitors(api.port, 1) as (idle,),
    ):
        idle.settimeout(SOON)
        assert read_response(client).startswith(b"HTTP/1.1 200")
        assert idle.recv(1) == b""
        client.settimeout(SOON)
        client.sendall(GET_VERSION[:-2])  # after the pause between requests, which may be longer
        assert client.recv(10_000) == b""


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    """The port of the metrics of a running server."""
    options = ["tcp://127.0.0.1:0", "--metrics", "tcp://127.0.0.1:0"]
    with Running([*BOTHENDS, "serve", "echo", *options]) as server:
        yield int(server.error_line(rb"  metrics http://127\.0\.0\.1:(\d+)/metrics.*")[1])
        assert server.stop() == 0


@pytest.mark.parametrize("data", [b"", b"GET /health"], ids=["nothing", "half a request"])
def test_idle_visitors_do_not_lock_metrics_and_health(metrics_port: int, data: bytes) -> None:
    with visitors(metrics_port, 100, data):
        started = time.monotonic()
        for path in (b"/health", b"/metrics"):
            assert exchange(metrics_port, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
        assert time.monotonic() - started < SOON


def test_visitors_do_not_close_a_newer_connection(metrics_port: int) -> None:
    with visitors(metrics_port, 40), socket.create_connection(("127.0.0.1", metrics_port), 20) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        with visitors(metrics_port, 10):
            assert exchange(metrics_port, b"GET /health HTTP/1.0\r\n\r\n")[0] == 200  # they are accepted
            client.sendall(b"Host: localhost\r\n\r\n")
            assert client.recv(10_000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (b"Host: evil.example", 421),
        (b"Host: localhost\r\nOrigin: http://evil.example", 403),
        (b"Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
    ],
)
def test_web_page_cannot_read_metrics(metrics_port: int, field: bytes, status: int) -> None:
    for path in (b"/health", b"/metrics"):
        assert exchange(metrics_port, b"GET " + path + b" HTTP/1.1\r\n" + field + b"\r\n\r\n")[0] == status
