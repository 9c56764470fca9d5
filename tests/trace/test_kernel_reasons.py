"""The kernel's reasons: recorded tracepoints of Linux 6.18, joins, and real ones if tracefs is there."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from bothends.errors import Unavailable
from bothends.trace import trace_file
from bothends.trace.capture import kernel_events
from bothends.trace.capture.kernel_counters import parse_counters
from bothends.trace.capture.kernel_events import KernelTracer, remove_stale_instances
from bothends.trace.capture.kernel_formats import addresses_of, parse_format, parse_page
from bothends.trace.capture.kernel_records import KernelRecord, KernelRecordJoiner
from bothends.trace.capture.packets import Capture
from bothends.trace.correlation.kernel_reasons import KernelEventMatcher
from bothends.trace.findings import Finding
from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.kernel_reasons import confirm
from bothends.trace.model import Call, KernelEvent, Packet, Point, Socket, SocketAddress, Trace
from bothends.trace.rendering.kernel_text import kernel_text
from bothends.trace.rendering.layout import rows_of
from bothends.trace.session import TraceSession
from tests.tools import needs_tool
from tests.trace.running import PYTHON

RECORDINGS = Path(__file__).parent / "recordings" / "tracefs"
CLIENT, SERVER = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 7000)
little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="recorded on x86-64")


@pytest.fixture
def tracer() -> Iterator[KernelTracer]:
    try:
        opened = KernelTracer()
    except Unavailable as error:
        pytest.skip(f"tracefs: {error}")
    with opened:
        yield opened


def recorded_events() -> list[KernelEvent]:
    formats = [parse_format(each.read_text()) for each in RECORDINGS.glob("*[a-z].format")]
    by_number = {each.number: each for each in formats}
    page = base64.decodebytes((RECORDINGS / "trace_pipe_raw.base64").read_bytes())
    records, lost = parse_page(page)
    assert not lost
    return list(
        KernelRecordJoiner().events(
            KernelRecord(
                each.at, by_number[each.format_number], by_number[each.format_number].decode(each.data)
            )
            for each in records
        )
    )


# Formats and pages


def test_parse_format_names_the_reasons() -> None:
    found = parse_format((RECORDINGS / "kfree_skb.format").read_text())
    assert found.name == "kfree_skb"
    assert found.symbol("reason", 6) == "SOCKET_RCVBUFF"
    assert found.value_of("reason", "NO_SOCKET") == 3
    assert found.value_of("reason", "NO_SUCH_REASON") is None


def test_parse_format_of_another_file_raises() -> None:
    with pytest.raises(ValueError, match="no ID"):
        parse_format("something else")


def test_older_format_without_reason_has_addresses() -> None:
    found = parse_format((RECORDINGS / "tcp_send_reset-5.15.format").read_text())
    record = bytearray(80)
    record[28:34] = struct.pack("=HHH", 7000, 40000, 2)
    record[34:42] = bytes([127, 0, 0, 1]) * 2
    assert addresses_of(found.decode(bytes(record))) == (SERVER, CLIENT)
    record[32:34] = struct.pack("=H", 10)
    record[57], record[73] = 1, 1
    ends = addresses_of(found.decode(bytes(record)))
    assert ends == (SocketAddress("::1", 7000), SocketAddress("::1", 40000))
    (event,) = KernelRecordJoiner().events([KernelRecord(1, found, found.decode(bytes(record)))])
    assert (event.kind, event.reason) == ("reset-sent", "")


@pytest.mark.parametrize("page", [b"", bytes(15), bytes(16), b"\xff" * 64, bytes(8) + b"\x40" + bytes(80)])
def test_parse_page_survives_damaged_pages(page: bytes) -> None:
    parse_page(page)


@little_endian
def test_parse_page_reports_lost_records() -> None:
    page = bytes(8) + struct.pack("<Q", 1 << 31)
    assert parse_page(page) == ([], True)


@little_endian
def test_recorded_page_has_resets_drops_and_errors_with_their_reasons() -> None:
    found = [(each.kind, each.reason, each.protocol) for each in recorded_events()]
    assert found == [
        ("reset-sent", "NO_SOCKET", "tcp"),
        ("reset-received", "", "tcp"),
        ("error", "ECONNREFUSED", "tcp"),
        *[("drop", "SOCKET_RCVBUFF", "udp")] * 4,
        ("drop", "NO_SOCKET", ""),
        ("error", "ECONNREFUSED", "udp"),
        *[
            ("reset-received", "", "tcp"),
            ("error", "ECONNRESET", "tcp"),
            ("reset-sent", "TCP_ABORT_ON_CLOSE", "tcp"),
        ]
        * 2,
    ]


@little_endian
def test_recorded_reset_goes_from_the_closed_port_to_the_client() -> None:
    sent, received = recorded_events()[:2]
    assert (sent.source, sent.destination) == (received.source, received.destination)
    assert sent.source == SocketAddress("127.0.0.1", 46773)


# Joins


def matcher(*sockets: Socket) -> KernelEventMatcher:
    def at(address: SocketAddress) -> Socket | None:
        return next((each for each in sockets if each.local == address), None)

    def sockets_of(packet: Packet) -> tuple[Socket | None, Socket | None]:
        return at(packet.source), at(packet.destination)

    return KernelEventMatcher(sockets_of, lambda packet: any(sockets_of(packet)))


CLIENT_SOCKET = Socket(1, "inet", "datagram", local=CLIENT)
SERVER_SOCKET = Socket(2, "inet", "datagram", local=SERVER)


def datagram(number: int, at: int) -> Packet:
    return Packet(number, at, "udp", CLIENT, SERVER, 1, b"x", sender=1, receiver=2)


def test_match_finds_socket_and_packet_by_addresses() -> None:
    matching = matcher(CLIENT_SOCKET, SERVER_SOCKET)
    matching.observe(Point(datagram(7, 1000)))
    event = KernelEvent(8, 2000, "drop", "SOCKET_RCVBUFF", "udp", CLIENT, SERVER)
    assert matching.match(event)
    assert (event.socket, event.packet) == (2, 7)


def test_match_rejects_other_programs() -> None:
    event = KernelEvent(8, 2000, "drop", "SOCKET_RCVBUFF", "udp", CLIENT, SERVER)
    assert not matcher().match(event)


def test_match_without_addresses_uses_the_call_that_it_interrupts() -> None:
    matching = matcher(CLIENT_SOCKET)
    matching.observe(Point(Call(6, 1, 99, "sendto", 500, socket=1)))
    matching.observe(Point(datagram(7, 1000)))
    event = KernelEvent(8, 2000, "drop", "NO_SOCKET", thread=99)
    assert matching.match(event)
    assert (event.packet, event.source, event.destination) == (7, CLIENT, SERVER)


@pytest.mark.parametrize(
    ("name", "thread", "at"), [("recvfrom", 99, 2000), ("sendto", 98, 2000), ("sendto", 99, 10**9)]
)
def test_match_without_addresses_rejects_other_drops(name: str, thread: int, at: int) -> None:
    matching = matcher(CLIENT_SOCKET)
    matching.observe(Point(Call(6, 1, 99, name, 500, socket=1)))
    matching.observe(Point(datagram(7, 1000)))
    assert not matching.match(KernelEvent(8, at, "drop", "NO_SOCKET", thread=thread))


def trace_with(*events: KernelEvent) -> Trace:
    trace = Trace()
    trace.sockets = {1: CLIENT_SOCKET, 2: SERVER_SOCKET}
    trace.add(Point(datagram(7, 1000)))
    for event in events:
        trace.add(Point(event))
    return trace


def lost_datagrams() -> Finding:
    return Finding("receive-buffer-full", "", "Lost.", "", (7,), "inferred", "sums", sockets=(2,))


def test_confirmed_finding_is_seen_with_the_kernels_word() -> None:
    event = KernelEvent(8, 2000, "drop", "SOCKET_RCVBUFF", "udp", CLIENT, SERVER, socket=2, packet=7)
    found = confirm(lost_datagrams(), TraceIndex(trace_with(event)))
    assert (found.certainty, found.basis, found.evidence) == ("seen", "", (7, 8))
    assert found.text.endswith(
        "The kernel dropped the datagram: the socket's receive buffer was full (SOCKET_RCVBUFF)."
    )


def test_counter_adds_to_the_basis_and_proves_nothing() -> None:
    trace = trace_with()
    trace.counters = {"UdpRcvbufErrors": 36}
    found = confirm(lost_datagrams(), TraceIndex(trace))
    assert found.certainty == "inferred"
    assert found.basis.startswith("sums; on this machine the kernel counted 36 datagrams dropped")


def test_event_of_another_socket_confirms_nothing() -> None:
    event = KernelEvent(8, 2000, "drop", "SOCKET_RCVBUFF", "udp", SERVER, CLIENT, socket=1)
    assert confirm(lost_datagrams(), TraceIndex(trace_with(event))) == lost_datagrams()


def test_kernel_reason_of_a_reset_reported_after_it() -> None:
    packet = Packet(9, 5000, "tcp", SERVER, CLIENT, 0, b"", ("RST",))
    event = KernelEvent(8, 6000, "reset-sent", "TCP_ABORT_ON_CLOSE", "tcp", SERVER, CLIENT)
    index = TraceIndex(trace_with(event))
    assert index.kernel_reason(packet) is event
    assert index.kernel_reason(packet, "drop") is None
    assert index.kernel_reason(SERVER_SOCKET) is None


def test_trace_file_keeps_events_and_counters() -> None:
    event = KernelEvent(8, 2000, "drop", "SOCKET_RCVBUFF", "udp", CLIENT, SERVER, 2, 7, 99)
    trace = trace_with(event)
    trace.counters = {"UdpRcvbufErrors": 1}
    file = StringIO()
    writer = trace_file.TraceFileWriter(file, trace)
    for point in trace.points:
        writer.write(point)
    writer.write_end()
    read = Trace()
    trace_file.read(StringIO(file.getvalue()), "saved", lambda _: None, read)
    again = read.event(8)
    assert isinstance(again, KernelEvent)
    assert kernel_text(again) == kernel_text(event)
    assert (again.socket, again.packet, again.thread, read.counters) == (2, 7, 99, trace.counters)


def test_parse_counters_of_netstat_and_snmp6() -> None:
    text = "TcpExt: ListenOverflows ListenDrops\nTcpExt: 3 4\nUdp: NoPorts RcvbufErrors\nUdp: 1 2\n"
    assert parse_counters(text) == {
        "TcpExtListenOverflows": 3,
        "TcpExtListenDrops": 4,
        "UdpNoPorts": 1,
        "UdpRcvbufErrors": 2,
    }
    assert parse_counters("Udp6RcvbufErrors   \t5\nIp6InReceives 7\n") == {
        "UdpRcvbufErrors": 5,
        "Ip6InReceives": 7,
    }


# Real ones


def read_until(tracer: KernelTracer, kind: str, port: int) -> KernelEvent:
    for _ in range(100):
        for event in tracer.read():
            ends = event.source, event.destination
            if event.kind == kind and any(each is not None and each.port == port for each in ends):
                return event
        select.select([], [], [], 0.05)
    raise AssertionError(f"no {kind} of port {port}")


def test_real_reset_of_a_closed_port(tracer: KernelTracer) -> None:
    with socket.socket() as unused, socket.socket() as client:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert client.connect_ex(("127.0.0.1", port))
    event = read_until(tracer, "reset-sent", port)
    assert event.source == SocketAddress("127.0.0.1", port)
    assert event.reason in ("NO_SOCKET", "")


def test_real_datagram_dropped_for_a_full_buffer(tracer: KernelTracer) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
        for _ in range(10):
            client.sendto(b"x" * 1000, server.getsockname())
        event = read_until(tracer, "drop", server.getsockname()[1])
    assert event.reason == "SOCKET_RCVBUFF"


def test_real_filter_by_port_leaves_out_others(tracer: KernelTracer) -> None:
    tracer.filter_ports([1])
    with socket.socket() as unused, socket.socket() as client:
        unused.bind(("127.0.0.1", 0))
        assert client.connect_ex(unused.getsockname())
        port = unused.getsockname()[1]
    read_until(tracer, "reset-sent", port)  # the kernel cannot filter this one
    assert not [each for each in tracer.read() if each.kind == "error"]


def test_real_instance_of_an_exited_process_is_removed(
    tracer: KernelTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracer._instance is not None
    own = tracer._instance
    stale = own.parent / f"{kernel_events.INSTANCE_PREFIX}{2**22 + 1}"  # above the greatest pid
    stale.mkdir()
    remove_stale_instances(own.parent.parent)
    assert own.exists()
    assert not stale.exists()
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 2)
    with KernelTracer() as other:
        remove_stale_instances(own.parent.parent)  # in use, although its process does not exist
        assert other._instance is not None
        assert other._instance.exists()


RECEIVER = """
import signal, socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
server.bind(("127.0.0.1", 0))
server.getsockname()
signal.pause()
"""
SENDER = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("127.0.0.1", int(sys.argv[1])))
for _ in range(20):
    client.send(b"y" * 1000)
"""


@needs_tool("strace")
def test_traced_drops_are_at_the_receiver_and_have_their_packets(tracer: KernelTracer) -> None:
    session = TraceSession(lambda _: None)
    session.add_server("server", [*PYTHON, "-c", RECEIVER])
    session.add_client("client", [*PYTHON, "-c", SENDER, "{port}"], inherit_stdin=False)
    session.kernel = tracer
    session.capture = Capture()
    session.run()
    drops = [each for each in session.trace.events() if isinstance(each, KernelEvent) and each.kind == "drop"]
    assert drops
    assert {each.reason for each in drops} == {"SOCKET_RCVBUFF"}
    (receiver,) = (
        each for each in session.trace.sockets.values() if each.kind == "datagram" and not each.peer
    )
    assert {each.socket for each in drops} == {receiver.number}
    packets = [session.trace.event(each.packet or 0) for each in drops]
    assert all(isinstance(each, Packet) and each.destination == receiver.local for each in packets)
    rows = [cell.text for row in rows_of(session.trace) for cell in row.cells]
    assert any("the socket's receive buffer was full (SOCKET_RCVBUFF)" in each for each in rows)
