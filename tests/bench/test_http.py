"""HTTP targets: what is verified, each fault, and hostile servers; both generators."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bothends
from bothends.bench.generators import native, native_tls
from bothends.bench.generators.base import RunPlan
from bothends.bench.generators.http_probe import probe
from bothends.bench.generators.python import PythonGenerator
from bothends.bench.http_response import MALFORMED, HttpResponseReader, MalformedResponse
from bothends.bench.http_target import (
    HttpExchange,
    describe_statuses,
    encode_request,
    expect_like,
    parse_statuses,
    parse_url,
)
from bothends.bench.load import measure
from bothends.bench.results import Faults, Round
from bothends.bench.schedule import Schedule
from bothends.bench.workload import Workload
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.layers import TlsSettings
from bothends.services.base import Conversation, Peer, Push, Service
from tests.bench.faulty_servers import stream_server
from tests.bench.min_samples import measure_until_enough
from tests.tools import find_tool, needs_tool

GENERATORS = [
    "python",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason=native.unavailable_reason()),
    ),
]
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
BODY = b"0123456789abcdef"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n01234\r\n00B ;name=value\r\n56789abcdef\r\n0\r\nTrailer: x\r\n\r\n"
)
EXCHANGE = HttpExchange("http://h/", "GET", frozenset({200}), 16, BODY)


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(
    generator: str,
    endpoint: Endpoint,
    exchange: HttpExchange = EXCHANGE,
    *,
    duration: float | None = None,
    responses: int = 10,
    **options: Any,
) -> Round:
    if duration is None:
        return measure_until_enough(
            lambda seconds: run(generator, endpoint, exchange, duration=seconds, **options), responses
        )
    plan = RunPlan(
        endpoint,
        Workload("http", (REQUEST,), (b"",)),
        duration=duration,
        http=exchange,
        **{"timeout": 5.0, **options},
    )
    return measure(plan, generator=native.NativeGenerator() if generator == "native" else PythonGenerator())


def requests(connection: socket.socket) -> Iterator[bytes]:
    """Yield the heads of requests without a body."""
    partial = b""
    while data := connection.recv(65536):
        *complete, partial = (partial + data).split(b"\r\n\r\n")
        yield from complete


def answering(response: bytes, *, pieces: int = 1, close: bool = False) -> Callable[[socket.socket], None]:
    """Answer each request with the same bytes, in pieces of equal size, each in a segment of its own."""

    def handle(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(response) // pieces)
        for _ in requests(connection):
            for at in range(0, len(response), size):
                connection.sendall(response[at : at + size])
            if close:  # unread requests would turn the close into RST
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
                return

    return handle


@pytest.mark.parametrize("response", [PLAIN, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("pieces", [1, 3, 200])
def test_every_byte_is_compared_whatever_the_chunking(generator: str, response: bytes, pieces: int) -> None:
    with stream_server(answering(response, pieces=pieces)) as endpoint:
        found = run(generator, endpoint, connections=2, depth=2)
    assert found.faults == Faults()
    assert found.http is not None
    assert list(found.http.statuses) == ["200"]
    assert found.bytes_received == 16 * found.completed
    assert found.connections_made == 2


def exchange_of(**changes: object) -> HttpExchange:
    return HttpExchange(**{"url": "", "method": "GET", "statuses": frozenset({200}), **changes})  # type: ignore[arg-type]


HEAD_ONLY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("response", "exchange", "fault"),
    [
        (PLAIN.replace(b"5", b"6"), EXCHANGE, "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n" + BODY + b"g", EXCHANGE, "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n012", EXCHANGE, "short"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n013", EXCHANGE, "wrong"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz", exchange_of(length=4), "short"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvwxyz", exchange_of(length=4), "wrong"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 16\r\n\r\n" + BODY, EXCHANGE, "wrong_status"),
    ],
)
def test_other_responses_are_faults(
    generator: str, response: bytes, exchange: HttpExchange, fault: str
) -> None:
    with stream_server(answering(response)) as endpoint:
        found = run(generator, endpoint, exchange)
    assert found.faults.total == getattr(found.faults, fault) > 0
    assert found.completed == 0
    assert found.connections_made == 1  # the next response could be found


@pytest.mark.parametrize(
    ("response", "exchange"),
    [
        (HEAD_ONLY, exchange_of(method="HEAD")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", exchange_of(statuses=frozenset({204}), length=0)),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", exchange_of(statuses=frozenset({304}))),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + PLAIN, EXCHANGE),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 16\r\n\r\n" + BODY, EXCHANGE),
        (
            b"HTTP/1.1 200 \r\ncontent-length:16\t\r\nX-\xe9: \r\n\r\n".replace(b"-\xe9", b"-e") + BODY,
            EXCHANGE,
        ),
    ],
)
def test_responses_with_unusual_framing(generator: str, response: bytes, exchange: HttpExchange) -> None:
    with stream_server(answering(response)) as endpoint:
        found = run(generator, endpoint, exchange)
    assert (found.faults, found.connections_made) == (Faults(), 1)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 16\r\n\r\n" + BODY,
        b"HTTP/1.0 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    ],
)
@pytest.mark.parametrize("options", [{}, {"depth": 3}, {"reconnect": True}, {"schedule": Schedule(300)}])
def test_responses_that_close_the_connection_are_followed_by_another(
    generator: str, response: bytes, options: dict[str, Any]
) -> None:
    with stream_server(answering(response, close=True)) as endpoint:
        found = run(generator, endpoint, connections=2, **options)
    assert found.faults == Faults()
    assert found.http is not None
    assert found.http.closes == found.http.statuses["200"] >= 10
    assert found.connections_made >= found.http.closes


def test_truncated_bodies_are_short(generator: str) -> None:
    with stream_server(answering(PLAIN[:-1], close=True)) as endpoint:
        found = run(generator, endpoint, responses=1)
    assert found.faults.total == found.faults.short > 0


def test_unsolicited_data_is_wrong(generator: str) -> None:
    with stream_server(answering(PLAIN + b"!")) as endpoint:
        found = run(generator, endpoint, responses=1)
    assert found.faults.total == found.faults.wrong > 0


def test_requests_without_a_response_time_out(generator: str) -> None:
    with stream_server(answering(PLAIN[:10])) as endpoint:
        found = run(generator, endpoint, duration=0.3, timeout=0.1)
    assert found.faults.timed_out > 0


ENDLESS = b"a" * 70_000
HOSTILE = {
    "status line": [
        b"SSH-2.0-x\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
    ],
    "header field": [
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
    ],
    "Content-Length": [
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ],
    "Transfer-Encoding": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "chunk": [
        CHUNKED.replace(b"5\r\n01234", b"x\r\n01234"),
        CHUNKED.replace(b"5\r\n01234", b"\r\n01234"),
        CHUNKED.replace(b"5\r\n01234", b"-5\r\n01234"),
        CHUNKED.replace(b"5\r\n01234", b"4\r\n01234"),
        CHUNKED.replace(b"5\r\n01234", b"FFFFFFFFFFFFFFFF\r\n01234"),
        CHUNKED.replace(b"01234\r\n", b"01234\n\n"),
    ],
    "line without CR": [
        b"HTTP/1.1 200 OK\nContent-Length: 16\n\n" + BODY,
        b"\n\n\n",
        CHUNKED.replace(b"5\r\n", b"5\n"),
        CHUNKED.replace(b"Trailer: x\r\n", b"Trailer: x\n"),
    ],
    "head or line too long": [
        b"HTTP/1.1 200 OK\r\nA: " + ENDLESS,
        ENDLESS,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
        CHUNKED.replace(b"name=value", ENDLESS),
        CHUNKED.replace(b"Trailer: x", b"Trailer: " + ENDLESS),
    ],
}
CASES = [(reason, response) for reason, several in HOSTILE.items() for response in several]


def test_hostile_responses_cover_every_reason() -> None:
    assert tuple(HOSTILE) == MALFORMED


@pytest.mark.parametrize("index", range(len(CASES)))
def test_malformed_responses_are_counted_with_their_reason(generator: str, index: int) -> None:
    reason, response = CASES[index]
    with stream_server(answering(response, pieces=1 + index % 3, close=True)) as endpoint:
        found = run(generator, endpoint, responses=1)
    assert found.http is not None
    assert set(found.http.malformed) == {reason}
    assert found.faults.malformed == sum(found.http.malformed.values())
    assert found.faults.total == found.faults.malformed


@pytest.mark.parametrize("response", [PLAIN, CHUNKED, *(each for _, each in CASES if len(each) < 500)])
def test_reader_gives_the_same_result_for_every_split(response: bytes) -> None:
    def read(pieces: list[bytes]) -> tuple[str, bytes]:
        body = bytearray()
        reader = HttpResponseReader(no_body=False, on_body=body.extend)
        try:
            for piece in pieces:
                if reader.feed(piece):
                    return "complete", bytes(body)
        except MalformedResponse as malformed:
            return malformed.reason, b""
        return "partial", b""

    whole = read([response])
    assert read([bytes([each]) for each in response]) == whole
    for at in range(1, len(response)):
        assert read([response[:at], response[at:]]) == whole


def test_mixed_statuses_are_counted_apart(generator: str) -> None:
    count = itertools.count()

    def handle(connection: socket.socket) -> None:
        for _ in requests(connection):
            connection.sendall(PLAIN if next(count) % 2 else PLAIN.replace(b"200 OK", b"500 No"))

    with stream_server(handle) as endpoint:
        found = run(generator, endpoint)
    assert found.http is not None
    assert abs(found.http.statuses["200"] - found.http.statuses["500"]) <= 1
    assert found.faults.total == found.faults.wrong_status == found.http.statuses["500"]


# Servers of others ------------------------------------------------------------------------------------


@contextlib.contextmanager
def python_server(folder: Path, protocol: str) -> Iterator[Endpoint]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = protocol

        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_python_http_server(generator: str, protocol: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 700  # more than one read
    (tmp_path / "page").write_bytes(content)
    exchange = exchange_of(length=len(content), body=content)
    with python_server(tmp_path, protocol) as endpoint:
        request = encode_request(
            parse_url(f"http://127.0.0.1:{endpoint.port}/page"), "GET", (), b"", close=False
        )
        assert probe(endpoint, exchange, request, tls=None, timeout=5)[0] == (200, content)
        plan = RunPlan(
            endpoint,
            Workload("http", (request,), (b"",)),
            duration=0.1,
            timeout=5,
            http=exchange,
            connections=2,
        )
        made = native.NativeGenerator() if generator == "native" else PythonGenerator()
        found = measure(plan, generator=made)
    assert found.faults == Faults()
    assert found.http is not None
    assert bool(found.http.closes) == (protocol == "HTTP/1.0")


NGINX = """
daemon off; master_process off; error_log stderr; pid {folder}/pid;
events {{ }}
http {{
  access_log off; keepalive_requests 5;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen unix:{folder}/socket; root {folder}; }}
}}
"""


@needs_tool("nginx")
def test_nginx_closes_after_some_requests(generator: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(BODY)
    (tmp_path / "conf").write_text(NGINX.format(folder=tmp_path))
    command = [find_tool("nginx") or "", "-p", str(tmp_path), "-c", str(tmp_path / "conf"), "-e", "stderr"]
    endpoint = Endpoint("unix", path=str(tmp_path / "socket"))
    exchange = exchange_of(length=16, body=BODY)
    request = encode_request(parse_url("http://h/page"), "GET", (), b"", close=False)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            with socket.socket(socket.AF_UNIX) as first:
                while first.connect_ex(endpoint.path):  # not there yet, or not listening yet
                    assert process.poll() is None
            plan = RunPlan(
                endpoint, Workload("http", (request,), (b"",)), duration=0.2, timeout=5, http=exchange
            )
            made = native.NativeGenerator() if generator == "native" else PythonGenerator()
            found = measure_until_enough(lambda _: measure(plan, generator=made))
        finally:
            process.terminate()
    assert found.faults == Faults()
    assert found.http is not None
    assert found.http.closes == found.http.statuses["200"] // 5 > 0


class _Pages(Service):
    """Answers each request with the same response."""

    name = "pages"
    summary = "answers each request with the same response"

    def open(self, peer: Peer, push: Push) -> Conversation:
        return _PagesConversation()


class _PagesConversation(Conversation):
    def receive(self, data: bytes) -> bytes:
        return PLAIN * data.count(b"\r\n\r\n")


def test_https_is_measured_by_both_generators(generator: str) -> None:
    with bothends.serve(
        _Pages(), "tls://127.0.0.1:0", tls=TlsSettings(self_signed=True), engine="epoll"
    ) as server:
        endpoint = server.endpoints[0]
        tls = TlsOptions(fingerprint=server.tls_fingerprint or "")
        if generator == "native" and (reason := native_tls.unavailable_reason()):
            pytest.skip(reason)
        found = run(generator, endpoint, tls=tls, connections=2, depth=2)
        assert probe(endpoint, EXCHANGE, REQUEST, tls=tls, timeout=5) == [(200, BODY)] * 3
    assert found.faults == Faults()


# URL and options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "endpoint", "host", "path"),
    [
        ("http://example.com", Endpoint("tcp", host="example.com", port=80), "example.com", "/"),
        ("HTTPS://a.b/c?d=e#f", Endpoint("tls", host="a.b", port=443), "a.b", "/c?d=e"),
        ("http://[::1]:8000/x%20y/é", Endpoint("tcp", host="::1", port=8000), "[::1]:8000", "/x%20y/%C3%A9"),
    ],
)
def test_parse_url(url: str, endpoint: Endpoint, host: str, path: str) -> None:
    found = parse_url(url)
    assert (found.endpoint, found.authority, found.path) == (endpoint, host, path)


@pytest.mark.parametrize("url", ["http://", "http:///x", "http://u:p@h/", "http://h:99999/", "http://h/a b"])
def test_invalid_urls(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)


def test_encode_request_lets_given_headers_replace_its_own() -> None:
    target = parse_url("http://h:1/x")
    request = encode_request(target, "POST", ["host: other", "X-A: é"], b"body", close=True)
    assert request == (
        b"POST /x HTTP/1.1\r\nUser-Agent: bothends\r\nAccept: */*\r\nContent-Length: 4\r\n"
        b"Connection: close\r\nhost: other\r\nX-A: " + "é".encode() + b"\r\n\r\nbody"
    )


@pytest.mark.parametrize("header", ["no colon", "a b: c", "A: b\r\nC: d", "Content-Length: 3"])
def test_invalid_headers(header: str) -> None:
    with pytest.raises(UsageError):
        encode_request(parse_url("http://h"), "GET", [header], b"", close=False)


@pytest.mark.parametrize("text", ["200", "2xx or 304", "2xx or 3xx"])
def test_statuses_are_described_as_they_are_given(text: str) -> None:
    assert describe_statuses(parse_statuses(text.replace(" or ", ","))) == text


@pytest.mark.parametrize("text", ["", "20", "600", "ok", "200,"])
def test_invalid_statuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_statuses(text)


@pytest.mark.parametrize(
    ("bodies", "verify", "described"),
    [
        ((b"abc", b"abc"), "auto", "body (3 bytes, every byte)"),
        ((b"abc", b"abd"), "auto", "length (3 bytes), but not its bytes"),
        ((b"abc", b"ab"), "auto", "neither length nor bytes"),
        ((b"abc", b"abc"), "length", "length (3 bytes), but not its bytes"),
        ((b"abc", b"abc"), "status", "neither length nor bytes"),
    ],
)
def test_what_the_first_responses_have_in_common_is_verified(
    bodies: tuple[bytes, ...], verify: str, described: str
) -> None:
    found = expect_like(exchange_of(), [(201, each) for each in bodies], verify, any_status=True)  # type: ignore[arg-type]
    assert described in found.describe()
    assert "(201)" in found.describe()


def test_changing_bodies_and_errors_must_be_asked_for() -> None:
    with pytest.raises(UsageError, match="differ"):
        expect_like(exchange_of(), [(200, b"a"), (200, b"b")], "body", any_status=True)
    with pytest.raises(UsageError, match="--expect-status 404"):
        expect_like(exchange_of(), [(404, b"a")], "auto", any_status=True)
