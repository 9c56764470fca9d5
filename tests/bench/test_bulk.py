"""Bulk transfers: every byte is compared; TCP's figures are sampled."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

import bothends
from bothends.bench.bulk_pattern import CHUNK, BulkCheck, BulkKind, expected_block, period
from bothends.bench.generators import bulk, native, native_tls
from bothends.bench.generators.bulk import detect_kind, select_bulk_generator
from bothends.bench.generators.bulk_base import BulkPlan
from bothends.bench.report import html, text
from bothends.bench.results import BenchEntry, BulkTransfer, Document, Faults, Round, decode, encode
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import HandshakeFailed, SystemCallFailed, TimeoutExpired, Unavailable, UsageError
from bothends.layers import TlsSettings
from bothends.server import Server
from bothends.services.chargen import PATTERN
from tests.bench.faulty_servers import reset, stream_server

MISSING = native.unavailable_reason()
GENERATORS = ["python", pytest.param("native", marks=pytest.mark.skipif(bool(MISSING), reason=MISSING))]
KINDS: tuple[BulkKind, ...] = ("echo", "upper", "chargen", "discard")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("sockets") / "stream"
    endpoints = ("tcp://127.0.0.1:0", f"unix://{path}", "tls://127.0.0.1:0")
    with bothends.serve(
        request.param, *endpoints, tls=TlsSettings(self_signed=True), engine="epoll"
    ) as running:
        yield running


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run_bulk(generator: str, plan: BulkPlan) -> Round:
    if (
        generator == "native"
        and plan.endpoint.scheme == "tls"
        and (reason := native_tls.unavailable_reason())
    ):
        pytest.skip(reason)
    return bulk.run_bulk(plan, generator=select_bulk_generator(generator, plan))


def plan_for(server: Server, scheme: str) -> BulkPlan:
    endpoint = next(each for each in server.endpoints if each.scheme == scheme)
    tls = TlsOptions(fingerprint=server.tls_fingerprint or "") if scheme == "tls" else None
    kind: BulkKind = server.service.name  # type: ignore[assignment]
    return BulkPlan(endpoint, kind, connections=2, duration=0.25, timeout=5, tls=tls)


@pytest.mark.parametrize("scheme", ["tcp", "unix", "tls"])
def test_transfer_moves_and_compares_data(server: Server, scheme: str, generator: str) -> None:
    plan = plan_for(server, scheme)
    found = run_bulk(generator, plan)
    assert found.own.name == ("Python, epoll" if generator == "python" else "C, epoll")
    assert (found.faults, found.ended, found.connections_made) == (Faults(), "", 2)
    assert found.bulk is not None
    assert found.bulk.bytes_per_s > CHUNK
    assert bool(found.bulk.sent) == (plan.kind != "chargen")
    assert bool(found.bulk.received) == (plan.kind != "discard")
    assert 1 <= len(found.bulk.samples) <= 3
    figures = [tcp for sample in found.bulk.samples for tcp in sample.connections]
    assert len(figures) == (0 if scheme == "unix" else 2 * len(found.bulk.samples))
    assert all(tcp.cwnd > 0 and tcp.mss > 500 and tcp.rtt_us > 0 for tcp in figures)


@pytest.mark.parametrize("server", ["discard"], indirect=True)
def test_handshakes_of_tls_are_verified(server: Server, generator: str) -> None:
    plan = plan_for(server, "tls")
    other = replace(plan, tls=TlsOptions(fingerprint="0" * 64))
    with pytest.raises(HandshakeFailed, match="fingerprint"):
        run_bulk(generator, other)
    with pytest.raises(HandshakeFailed, match="self-signed"):
        run_bulk(generator, replace(plan, tls=None))


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.parametrize("later", ["other", "plain", "close", "silent"])
def test_a_later_handshake_that_fails_ends_the_run(tmp_path: Path, later: str) -> None:
    """The first connection is a client's first look, the second that of the generator."""
    if reason := native_tls.unavailable_reason():
        pytest.skip(reason)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    names = iter(["127.0.0.1", "example.org" if later == "other" else ""])

    def handle(plain: socket.socket) -> None:
        if name := next(names):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(context)
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(1)
        elif later == "plain":
            plain.sendall(b"220 ready, who is there?\r\n")
            plain.recv(100_000)
        elif later == "silent":
            while plain.recv(100_000):
                pass

    problem = {
        "other": "CERTIFICATE_VERIFY_FAILED",
        "plain": "WRONG_VERSION_NUMBER",
        "close": "reset",
        "silent": "handshake",
    }
    with stream_server(handle) as server:
        plan = BulkPlan(
            Endpoint("tls", host="127.0.0.1", port=server.port),
            "discard",
            timeout=0.5 if later == "silent" else 20,
            tls=TlsOptions(ca=tmp_path / "ca.pem"),
        )
        expected = TimeoutExpired if later == "silent" else HandshakeFailed
        with pytest.raises(expected, match=problem[later]):
            run_bulk("native", plan)


def test_generator_in_c_needs_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BulkPlan(Endpoint("tcp", host="127.0.0.1", port=1), "discard")
    monkeypatch.setattr(native, "unavailable_reason", lambda: "no compiler")
    assert select_bulk_generator("auto", plan).name == "Python, epoll"
    with pytest.raises(Unavailable, match="no compiler"):
        select_bulk_generator("native", plan)


def test_kind_is_detected(server: Server) -> None:
    plan = plan_for(server, "tcp")
    assert detect_kind(plan.endpoint, tls=None, timeout=0.5 if plan.kind == "discard" else 5) == plan.kind


@pytest.mark.parametrize("greeting", [b"220 ready, who is there?\r\n", b""])
def test_other_servers_are_refused(greeting: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(greeting)
        while connection.recv(1000):
            connection.sendall(b"what is that?")

    with stream_server(handle) as endpoint, pytest.raises(UsageError, match=r"chargen|upper case"):
        detect_kind(endpoint, tls=None, timeout=5)


def changing_echo(change: Callable[[int, bytes], bytes]) -> Callable[[socket.socket], None]:
    """Echo, with each piece changed by its offset and data."""

    def handle(connection: socket.socket) -> None:
        offset = 0
        while data := connection.recv(60_000):
            connection.sendall(change(offset, data))
            offset += len(data)

    return handle


@pytest.mark.parametrize(
    "change",
    [
        lambda offset, data: data if offset < 500_000 else data[:100] + b"?" + data[101:],
        lambda offset, data: data if offset < 500_000 else data[1:],
        lambda offset, data: data if offset < 500_000 else data + data,
    ],
    ids=["changed", "missing", "doubled"],
)
def test_other_bytes_are_wrong(change: Callable[[int, bytes], bytes], generator: str) -> None:
    with stream_server(changing_echo(change)) as endpoint:
        found = run_bulk(generator, BulkPlan(endpoint, "echo", duration=5, timeout=5))
    assert found.faults == Faults(wrong=1)
    assert "other bytes" in found.ended or "not sent" in found.ended


def test_bytes_that_do_not_come_back_are_lost(generator: str) -> None:
    received = threading.Event()

    def handle(connection: socket.socket) -> None:
        connection.sendall(connection.recv(100))
        received.set()
        while connection.recv(100_000):
            pass

    with stream_server(handle) as endpoint:
        found = run_bulk(generator, BulkPlan(endpoint, "echo", duration=0.1, timeout=0.1))
    assert received.is_set()
    assert found.faults == Faults(lost=1)


def test_resets_and_data_from_discard_are_faults(generator: str) -> None:
    def reset_later(connection: socket.socket) -> None:
        connection.recv(1)  # the client has finished opening the connection
        reset(connection)

    with stream_server(reset_later) as endpoint:
        found = run_bulk(generator, BulkPlan(endpoint, "echo", duration=5, timeout=5))
    assert (found.faults.total, found.bulk and found.bulk.received) == (1, 0)
    assert BenchEntry("", "", BulkPlan(endpoint, "echo").load(), [found]).failed
    with stream_server(changing_echo(lambda _, data: data)) as endpoint:
        assert run_bulk(generator, BulkPlan(endpoint, "discard", duration=5, timeout=5)).faults == Faults(
            wrong=1
        )
    with pytest.raises(SystemCallFailed):
        run_bulk(generator, BulkPlan(Endpoint("tcp", host="127.0.0.1", port=1), "echo"))


def test_pattern_of_chargen_is_that_of_the_service() -> None:
    block = expected_block("chargen")
    assert block[: period(block)] == PATTERN


@pytest.mark.parametrize("kind", ["echo", "upper", "chargen"])
def test_check_accepts_the_pattern_in_any_pieces_and_notices_each_change(kind: BulkKind) -> None:
    block = expected_block(kind)
    data = (block[: period(block)] * 300)[: 2_500_000 + 17]
    for size in (7_001, CHUNK, 1_500_000):
        check = BulkCheck(kind)
        assert all(check.receive(data[at : at + size]) for at in range(0, len(data), size))
        assert check.count == len(data)
    for at in (0, 1_000_002, len(data) - 1):
        assert not BulkCheck(kind).receive(data[:at] + struct.pack("B", data[at] ^ 1) + data[at + 1 :])


def test_report_of_a_transfer(server: Server, generator: str) -> None:
    plan = replace(plan_for(server, "tcp"), duration=0.35)
    entry = BenchEntry("x", str(plan.endpoint), plan.load(), [run_bulk(generator, plan)])
    document = Document(1, "", "", {}, [entry])
    assert decode(encode(document), "here") == document
    lines = dict(text.summary_lines(entry))
    assert lines["load"] == f"bulk {plan.kind}, 2 connections"
    assert "MB/s" in lines["transfer"]
    assert ("TCP here" in lines) == (plan.kind != "chargen")
    page = html.render_html(document)
    assert ("cwnd (segments)" in page) == (plan.kind != "chargen")
    assert "MB/s" in page
    assert isinstance(entry.rounds[0].bulk, BulkTransfer)
    assert text.as_csv(document)
