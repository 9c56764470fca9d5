"""Trace files, and what is rendered from a trace: SVG, the web page, pcapng. Each with hostile bytes."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.cli.main import run
from bothends.trace import trace_file
from bothends.trace.capture.packets import Capture, parse_packet
from bothends.trace.findings import RULES, Finding, run_rules
from bothends.trace.model import (
    Call,
    CausalLink,
    Message,
    Packet,
    Point,
    ProcessEvent,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
)
from bothends.trace.rendering.html import render_page
from bothends.trace.rendering.layout import Filter, rows_of
from bothends.trace.rendering.pcapng import PcapngWriter, comment_of
from bothends.trace.rendering.svg import render_svg
from bothends.trace.rendering.terminal import Painter
from tests.tools import find_tool, needs_tool
from tests.trace.running import has_packets, packets, python_command, run_traced

HOSTILE = (
    b"\x1b[2J\x1b]0;evil\x07</script><script>alert(1)</script><!--\xff\xfe\xe2\x80\xae\r\n\x00" + b"A" * 5000
)

PROGRAM_SOURCE = """
from socket import *
s = create_server(("127.0.0.1", 0))
c = create_connection(s.getsockname())
d, _ = s.accept()
c.sendall(b"\\x1b[2J</script>")
d.recv(1000)
u = socket(AF_INET, SOCK_DGRAM)
u.bind(("127.0.0.1", 0))
v = socket(AF_INET, SOCK_DGRAM)
v.sendto(b"datagram", u.getsockname())
u.recvfrom(100)
"""


def hostile_trace() -> Trace:
    """Return a trace of a call, a packet and another call, with hostile text in every field."""
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 11, "<b>server</b>", "<script>")
    trace.processes[2] = TracedProcess(2, 12, "client")
    trace.sockets[1] = Socket(1, "inet", "stream", local=SocketAddress("127.0.0.1", 12000))
    trace.sockets[2] = Socket(
        2, "inet", "stream", local=SocketAddress("127.0.0.1", 40000), peer=SocketAddress("127.0.0.1", 12000)
    )
    send = Call(1, 2, 12, "sendto", 1000, descriptor=3, socket=2, data=HOSTILE, requested=9000, size=9000)
    receive = Call(
        3, 1, 11, "recvfrom", 1500, descriptor=4, socket=1, data=HOSTILE, requested=9000, size=9000
    )
    here, there = SocketAddress("127.0.0.1", 40000), SocketAddress("127.0.0.1", 12000)
    packet = Packet(
        2, 2000, "tcp", here, there, 9000, HOSTILE[:4096], ("PSH", "ACK"), sender=2, receiver=1,
        raw=b"E" + bytes(60), length=9040, offset=0,
    )  # fmt: skip
    send.until = receive.until = 3000
    send.result = receive.result = 9000
    send.arguments = ("3", '"</script>"', "9000")
    for point in (Point(receive), Point(send), Point(packet), Point(send, True), Point(receive, True)):
        trace.add(point)
    trace.link(CausalLink(1, 2, "carries"))
    trace.link(CausalLink(2, 3, "feeds"))
    return trace


def trace_file_text(trace: Trace) -> str:
    file = io.StringIO()
    writer = trace_file.TraceFileWriter(file, trace)
    for point in trace.points:
        writer.write(point)
    return file.getvalue()


def read_trace_text(text: str) -> Trace:
    trace = Trace()
    trace_file.read(text.splitlines(keepends=True), "a.trace", lambda point: None, trace)
    return trace


def drawn_lines(trace: Trace, row_filter: Filter | None = None) -> list[str]:
    painter = Painter(120, colour=False)
    return [line for row in rows_of(trace, row_filter, explain=True) for line in painter.lines(row)]


@pytest.fixture(scope="module")
def recorded() -> Trace:
    if find_tool("strace") is None:
        pytest.skip("strace isn't installed")
    return run_traced(python_command(PROGRAM_SOURCE))


def test_trace_file_round_trip(recorded: Trace) -> None:
    read_back = read_trace_text(trace_file_text(recorded))
    assert drawn_lines(read_back) == drawn_lines(recorded)
    assert sorted(read_back.links()) == sorted(recorded.links())
    assert run_rules(read_back) == run_rules(recorded)
    assert [packet.raw for packet in packets(read_back)] == [packet.raw for packet in packets(recorded)]


def test_rule_that_fails_does_not_lose_the_other_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> Iterator[Finding]:
        yield from ()
        raise KeyError("\x1b[31m")

    monkeypatch.setitem(RULES, "closed-with-unread-data", broken)
    (tmp_path / "trace").write_text(trace_file_text(hostile_trace()), encoding="utf-8")
    page = tmp_path / "page"
    assert run(["trace", "--open", str(tmp_path / "trace"), "--html", str(page)]) == 0
    assert "internal error in the rule closed-with-unread-data (please report)" in capsys.readouterr().err
    assert "\x1b" not in page.read_text(encoding="utf-8")
    with pytest.raises(KeyError):
        run_rules(hostile_trace())


def test_trace_file_keys_are_unchanged() -> None:
    """The keys are the file format: adding one is compatible, renaming one needs a new version."""
    address = SocketAddress("::1", 1)
    accept = Call(
        1, 2, 3, "accept4", 4, 5, ("6",), 7, "", 8, 9, (10,), 11, 12, b"13",
        (Message(14, b"15", address),), address, 16, frozenset({"MSG_PEEK"}),
        ("POLLIN",), (17,), (10,), ("POLLHUP",), 18,
    )  # fmt: skip
    packet = Packet(
        1, 2, "tcp", address, address, 3, b"4", ("SYN",), 5, 6, 7, 8, 9, True, 10, 11, 12, "lo", b"13", 14,
        "host", 15, "loss", True,
    )  # fmt: skip
    objects = (
        TracedProcess(1, 2, "server", "cat", 3, 4, 5, True, True, 6),
        Socket(1, "inet", "stream", 2, address, address, True, 3, 4, False, 5, True, True),
        accept,
        packet,
        ProcessEvent(1, 2, 3, "ended", "exit status 4", 4, 5),
    )
    assert [" ".join(trace_file.to_json_object(each)) for each in objects] == [
        "number pid role command parent began status uses_io_uring ignores_children ended",
        (
            "number family kind inode local peer is_listener welcomed_by peer_inode blocks process "
            "is_wrapped asks_name_service"
        ),
        (
            "number process thread name at until arguments result descriptor socket sockets asked size data "
            "messages place made flags wanted_events descriptors_waited ready ready_events timeout_ns"
        ),
        (
            "number at protocol source destination size data flags sequence acknowledged window offset acks "
            "resent repeats sender receiver interface raw length reaches until lost made"
        ),
        "number at process kind text status thread",
    ]
    assert trace_file.to_json_object(accept)["place"] == ["::1", 1]
    accept.error = "EMFILE"
    assert trace_file.to_json_object(accept)["error"] == "EMFILE"


def test_trace_file_every_attribute_has_a_key() -> None:
    for kind, attributes in trace_file._FIELDS.items():
        assert [each.name for each in dataclasses.fields(kind)] == list(attributes)


def test_socket_addresses_are_set_by_the_model_only() -> None:
    """Several modules learn addresses; `Socket` decides which of them replace others."""
    package = Path(trace_file.__file__).parent
    for path in set(package.rglob("*.py")) - {package / "model.py"}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                assert node.attr not in ("local", "peer"), f"{path.name}:{node.lineno}"


def test_trace_file_lines_are_json(recorded: Trace) -> None:
    kinds = [next(iter(json.loads(line))) for line in trace_file_text(recorded).splitlines()]
    assert kinds[0] == "bothends-trace"
    assert {"process", "socket", "call", "change"} <= set(kinds)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the file is empty"),
        ("{}\n", 1, "the first line doesn't hold the version of a trace"),
        ("<html>\n", 1, "Expecting value"),
        ('{"bothends-trace": 9}\n', 1, "version 9; this program reads version 1"),
        ('{"bothends-trace": 1}\n{"call": {"number": "one"}}\n', 2, "'one' instead of int"),
        ('{"bothends-trace": 1}\n{"call": {"colour": 1}}\n', 2, "colour"),
        ('{"bothends-trace": 1}\n{"\\u001b[2J": {}}\n', 2, "\\x1b[2J"),
        ('{"bothends-trace": 1}\n[[[[\n', 2, "Expecting value"),
    ],
)
def test_trace_file_invalid_is_rejected(text: str, line: int, reason: str) -> None:
    with pytest.raises(trace_file.TraceFileError) as raised:
        read_trace_text(text)
    assert raised.value.line == line
    assert reason in str(raised.value)
    assert str(raised.value).isprintable()


def test_trace_file_truncated_is_read_to_last_line(recorded: Trace) -> None:
    text = trace_file_text(recorded)
    read_back = read_trace_text(text[: text.index('"call"', len(text) // 2) + 3])
    assert read_back.notes == ["the trace ends within a line: its writer was interrupted"]
    whole = drawn_lines(recorded)
    assert 0 < len(drawn_lines(read_back)) < len(whole)


@given(st.text(max_size=200))
def test_trace_file_any_text_is_read_or_rejected(text: str) -> None:
    try:
        read_trace_text('{"bothends-trace": 1}\n' + text)
    except trace_file.TraceFileError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_diagram_escapes_control_characters() -> None:
    for line in drawn_lines(hostile_trace()):
        assert line.isprintable()
        assert len(line) <= 120


def test_svg_is_well_formed_without_script() -> None:
    text = render_svg(rows_of(hostile_trace()), "<title>")
    assert not minidom.parseString(text).getElementsByTagName("script")
    assert "\x1b" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_html_page_has_only_its_own_script() -> None:
    text = render_page(
        hostile_trace(), rows_of(hostile_trace()), run_rules(hostile_trace()), "<script>alert(2)</script>"
    )
    assert re.findall(r"<script[^>]*>", text) == [
        '<script type="application/octet-stream" id="events">',
        "<script>",
    ]
    assert text.count("</script>") == 2
    assert "alert(1)</" not in text
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "\x1b" not in text
    assert "default-src 'none'" in text


def test_filter_hides_calls_ports_and_descriptors() -> None:
    trace = hostile_trace()
    assert not [line for line in drawn_lines(trace, Filter(only=frozenset({"sendto"}))) if "recvfrom" in line]
    assert not [
        line for line in drawn_lines(trace, Filter(ports=frozenset({9}))) if "(" in line or "PSH" in line
    ]
    assert not [line for line in drawn_lines(trace, Filter(descriptors=frozenset({3}))) if "recvfrom" in line]


def test_pcapng_comment_names_process_descriptor_and_call() -> None:
    comment = comment_of(next(iter(packets(hostile_trace()))), hostile_trace())
    assert comment.startswith("from client (pid 12), descriptor 3: sendto(3, ")
    assert "; to <b>server</b> (pid 11), descriptor 4: recvfrom(4, 9000)" in comment


def test_trace_drops_oldest_points_above_limit() -> None:
    trace = Trace(max_points=10)
    for number in range(1, 101):
        trace.add(Point(Call(number, 1, 1, "read", number)))
        trace.link(CausalLink(number - 1, number, "feeds"))
    assert len(trace.points) == len(list(trace.events())) == 10
    assert trace.dropped == 90
    assert len(list(trace.links())) <= 11


@needs_tool("tshark")
def test_pcapng_is_readable_by_tshark(recorded: Trace, tmp_path: Path) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    path = tmp_path / "a.pcapng"
    with path.open("wb") as file:
        writer = PcapngWriter(file, recorded)
        for packet in packets(recorded):
            writer.write(packet)
    fields = ("frame.comment", "ip.src", "tcp.srcport", "udp.srcport", "tcp.len", "udp.length", "tcp.seq_raw")
    command = [str(find_tool("tshark")), "-r", str(path), "-T", "fields", "-E", "separator=|"]
    command += [word for each in fields for word in ("-e", each)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in shown.stdout.splitlines()]
    expected = packets(recorded)
    assert len(rows) == len(expected)
    for (_, host, tcp, udp, tcp_size, udp_size, sequence), packet in zip(rows, expected, strict=True):
        assert (host, tcp or udp) == (packet.source.host, str(packet.source.port))
        assert (int(tcp_size) if tcp else int(udp_size) - 8) == packet.size
        assert not tcp or int(sequence) == packet.sequence
    assert [row for row in rows if "sendto(" in row[0]]


IPV4_UDP = bytes.fromhex(
    "4500001f 0000 0000 4011 0000 7f000001 7f000001 3039 2ee0 000b 0000 68 69 21".replace(" ", "")
)


def test_parse_packet_ipv4_udp() -> None:
    packet = parse_packet(IPV4_UDP, 1, 2, "lo")
    assert packet is not None
    assert (packet.source, packet.destination) == (
        SocketAddress("127.0.0.1", 12345),
        SocketAddress("127.0.0.1", 12000),
    )
    assert (packet.size, packet.data, packet.length) == (3, b"hi!", 31)


def test_parse_packet_other_protocols_give_none() -> None:
    assert parse_packet(b"") is None
    assert parse_packet(IPV4_UDP[:9] + b"\x01" + IPV4_UDP[10:]) is None  # ICMP
    assert parse_packet(IPV4_UDP[:6] + b"\x00\x09" + IPV4_UDP[8:]) is None  # a later fragment


@given(st.binary(max_size=120))
def test_parse_packet_accepts_any_bytes(data: bytes) -> None:
    parse_packet(data)
    parse_packet(b"\x45" + data)
    parse_packet(b"\x60" + data)


@pytest.mark.parametrize("ports", [None, 1, 101])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_capture_port_filter_passes_known_ports_and_syns(
    family: socket.AddressFamily, host: str, ports: int | None
) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    with contextlib.ExitStack() as stack:
        capture = stack.enter_context(Capture())
        known, other = (stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(2))
        wanted, unwanted = known.getsockname()[1], other.getsockname()[1]
        capture.filter_ports(None if ports is None else [wanted, *range(1, ports)])
        for server in (known, other):
            with socket.create_connection(server.getsockname()[:2]) as client, server.accept()[0] as accepted:
                client.sendall(b"data")
                accepted.recv(100)
        seen = [packet for raw in capture.read() if (packet := raw.packet(0)) is not None]
    data = {packet.destination.port for packet in seen if packet.size and packet.data == b"data"}
    handshakes = {packet.destination.port for packet in seen if packet.flags == ("SYN",)}
    assert {wanted, unwanted} <= handshakes
    assert wanted in data
    assert (unwanted in data) == (ports is None)


def test_capture_has_more_until_older_packets_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    monkeypatch.setattr("bothends.trace.capture.packets.READ_BATCH", 1)
    with Capture() as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        for _ in range(5):
            endpoint.sendto(b"datagram", endpoint.getsockname())
        seen = [raw for raw in capture.read() if endpoint.getsockname()[1] in (raw.ports or ())]
        while capture.has_more():
            seen += [raw for raw in capture.read() if endpoint.getsockname()[1] in (raw.ports or ())]
    assert len(seen) == 5


def test_layout_undelivered_datagram_is_marked() -> None:
    trace = hostile_trace()
    packet = packets(trace)[0]
    packet.protocol, packet.flags = "udp", ()
    assert not [line for line in drawn_lines(trace) if "never received" in line]
    lost = Packet(9, 2500, "udp", packet.source, packet.destination, 4, b"lost", sender=2, receiver=1)
    trace.add(Point(lost))
    assert [line for line in drawn_lines(trace) if "lost" in line and "never received" in line]
