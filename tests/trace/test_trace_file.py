"""What is made of a trace: its own file, SVG, the page, pcapng. And bytes that would do harm in each."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import subprocess
from pathlib import Path
from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.trace import trace_file
from bothends.trace.capture.packets import Capture, parse
from bothends.trace.findings import find
from bothends.trace.model import Call, Link, Moment, Packet, Place, Process, Socket, Trace
from bothends.trace.rendering.html import page
from bothends.trace.rendering.layout import Filter, rows_of
from bothends.trace.rendering.pcapng import Writer, comment_of
from bothends.trace.rendering.svg import picture
from bothends.trace.rendering.terminal import Painter
from tests.tools import find_tool, needs_tool
from tests.trace.running import has_packets, packets, python, traced

HOSTILE = (
    b"\x1b[2J\x1b]0;evil\x07</script><script>alert(1)</script><!--\xff\xfe\xe2\x80\xae\r\n\x00" + b"A" * 5000
)

CONVERSATION = """
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


def made_up() -> Trace:
    """A trace of a call, a packet and another call, full of what would do harm."""
    trace = Trace()
    trace.processes[1] = Process(1, 11, "<b>server</b>", "<script>")
    trace.processes[2] = Process(2, 12, "client")
    trace.sockets[1] = Socket(1, "inet", "stream", local=Place("127.0.0.1", 12000))
    trace.sockets[2] = Socket(
        2, "inet", "stream", local=Place("127.0.0.1", 40000), peer=Place("127.0.0.1", 12000)
    )
    send = Call(1, 2, 12, "sendto", 1000, descriptor=3, socket=2, data=HOSTILE, asked=9000, size=9000)
    receive = Call(3, 1, 11, "recvfrom", 1500, descriptor=4, socket=1, data=HOSTILE, asked=9000, size=9000)
    here, there = Place("127.0.0.1", 40000), Place("127.0.0.1", 12000)
    packet = Packet(
        2, 2000, "tcp", here, there, 9000, HOSTILE[:4096], ("PSH", "ACK"), sender=2, receiver=1,
        raw=b"E" + bytes(60), length=9040, offset=0,
    )  # fmt: skip
    send.until = receive.until = 3000
    send.result = receive.result = 9000
    send.arguments = ("3", '"</script>"', "9000")
    for moment in (Moment(receive), Moment(send), Moment(packet), Moment(send, True), Moment(receive, True)):
        trace.add(moment)
    trace.link(Link(1, 2, "carries"))
    trace.link(Link(2, 3, "feeds"))
    return trace


def saved(trace: Trace) -> str:
    file = io.StringIO()
    writer = trace_file.Writer(file, trace)
    for moment in trace.moments:
        writer.tell(moment)
    return file.getvalue()


def opened(text: str) -> Trace:
    trace = Trace()
    trace_file.read(text.splitlines(keepends=True), "a.trace", lambda moment: None, trace)
    return trace


def drawn(trace: Trace, shown: Filter | None = None) -> list[str]:
    painter = Painter(120, colour=False)
    return [line for row in rows_of(trace, shown, explain=True) for line in painter.lines(row)]


@pytest.fixture(scope="module")
def recorded() -> Trace:
    if find_tool("strace") is None:
        pytest.skip("strace isn't installed")
    return traced(python(CONVERSATION))


def test_a_trace_comes_back_as_it_was(recorded: Trace) -> None:
    again = opened(saved(recorded))
    assert drawn(again) == drawn(recorded)
    assert sorted(again.links()) == sorted(recorded.links())
    assert find(again) == find(recorded)
    assert [packet.raw for packet in packets(again)] == [packet.raw for packet in packets(recorded)]


def test_each_line_of_a_file_is_json(recorded: Trace) -> None:
    kinds = [next(iter(json.loads(line))) for line in saved(recorded).splitlines()]
    assert kinds[0] == "bothends-trace"
    assert {"process", "socket", "call", "change"} <= set(kinds)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "it is empty"),
        ("{}\n", 1, "the first line doesn't say that it is one"),
        ("<html>\n", 1, "Expecting value"),
        ('{"bothends-trace": 9}\n', 1, "version 9, and this program reads version 1"),
        ('{"bothends-trace": 1}\n{"call": {"number": "one"}}\n', 2, "'one' instead of int"),
        ('{"bothends-trace": 1}\n{"call": {"colour": 1}}\n', 2, "colour"),
        ('{"bothends-trace": 1}\n{"\\u001b[2J": {}}\n', 2, "\\x1b[2J"),
        ('{"bothends-trace": 1}\n[[[[\n', 2, "Expecting value"),
    ],
)
def test_what_is_no_trace_is_refused(text: str, line: int, reason: str) -> None:
    with pytest.raises(trace_file.TraceFileError) as refused:
        opened(text)
    assert refused.value.line == line
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


def test_what_was_interrupted_is_read_as_far_as_it_goes(recorded: Trace) -> None:
    text = saved(recorded)
    again = opened(text[: text.index('"call"', len(text) // 2) + 3])
    assert again.notes == ["the trace ends within a line: whoever wrote it was interrupted"]
    whole = drawn(recorded)
    assert 0 < len(drawn(again)) < len(whole)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        opened('{"bothends-trace": 1}\n' + text)
    except trace_file.TraceFileError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_nothing_that_acts_on_a_terminal_is_drawn() -> None:
    for line in drawn(made_up()):
        assert line.isprintable()
        assert len(line) <= 120


def test_an_svg_is_well_formed_and_holds_no_script() -> None:
    text = picture(rows_of(made_up()), "<title>")
    assert not minidom.parseString(text).getElementsByTagName("script")
    assert "\x1b" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_page_has_its_own_script_and_no_other() -> None:
    text = page(made_up(), rows_of(made_up()), find(made_up()), "<script>alert(2)</script>")
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="events">', "<script>"]
    assert text.count("</script>") == 2
    assert "alert(1)</" not in text
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "\x1b" not in text
    assert "default-src 'none'" in text


def test_filters() -> None:
    trace = made_up()
    assert not [line for line in drawn(trace, Filter(only=frozenset({"sendto"}))) if "recvfrom" in line]
    assert not [line for line in drawn(trace, Filter(ports=frozenset({9}))) if "(" in line or "PSH" in line]
    assert not [line for line in drawn(trace, Filter(descriptors=frozenset({3}))) if "recvfrom" in line]


def test_the_comment_names_process_descriptor_and_call() -> None:
    comment = comment_of(next(iter(packets(made_up()))), made_up())
    assert comment.startswith("from client (pid 12), descriptor 3: sendto(3, ")
    assert "; to <b>server</b> (pid 11), descriptor 4: recvfrom(4, 9000)" in comment


def test_nothing_is_kept_beyond_the_limit() -> None:
    trace = Trace(most=10)
    for number in range(1, 101):
        trace.add(Moment(Call(number, 1, 1, "read", number)))
        trace.link(Link(number - 1, number, "feeds"))
    assert len(trace.moments) == len(list(trace.events())) == 10
    assert trace.dropped == 90
    assert len(list(trace.links())) <= 11


@needs_tool("tshark")
def test_tshark_reads_the_packets_and_their_comments(recorded: Trace, tmp_path: Path) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    path = tmp_path / "a.pcapng"
    with path.open("wb") as file:
        writer = Writer(file, recorded)
        for packet in packets(recorded):
            writer.tell(packet)
    fields = ("frame.comment", "ip.src", "tcp.srcport", "udp.srcport", "tcp.len", "udp.length", "tcp.seq_raw")
    command = [str(find_tool("tshark")), "-r", str(path), "-T", "fields", "-E", "separator=|"]
    command += [word for each in fields for word in ("-e", each)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in shown.stdout.splitlines()]
    ours = packets(recorded)
    assert len(rows) == len(ours)
    for (_, host, tcp, udp, tcp_size, udp_size, sequence), packet in zip(rows, ours, strict=True):
        assert (host, tcp or udp) == (packet.source.host, str(packet.source.port))
        assert (int(tcp_size) if tcp else int(udp_size) - 8) == packet.size
        assert not tcp or int(sequence) == packet.sequence
    assert [row for row in rows if "sendto(" in row[0]]


IPV4_UDP = bytes.fromhex(
    "4500001f 0000 0000 4011 0000 7f000001 7f000001 3039 2ee0 000b 0000 68 69 21".replace(" ", "")
)


def test_an_ip_packet_is_read() -> None:
    packet = parse(IPV4_UDP, 1, 2, "lo")
    assert packet is not None
    assert (packet.source, packet.destination) == (Place("127.0.0.1", 12345), Place("127.0.0.1", 12000))
    assert (packet.size, packet.data, packet.length) == (3, b"hi!", 31)


def test_what_is_no_packet_of_ours_is_left_out() -> None:
    assert parse(b"") is None
    assert parse(IPV4_UDP[:9] + b"\x01" + IPV4_UDP[10:]) is None  # ICMP
    assert parse(IPV4_UDP[:6] + b"\x00\x09" + IPV4_UDP[8:]) is None  # a later fragment


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_left_out(data: bytes) -> None:
    parse(data)
    parse(b"\x45" + data)
    parse(b"\x60" + data)


@pytest.mark.parametrize("ports", [None, 1, 101])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_where_too_much_passes_only_known_ports_and_handshakes_are_kept(
    family: socket.AddressFamily, host: str, ports: int | None
) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    with contextlib.ExitStack() as stack:
        capture = stack.enter_context(Capture())
        known, other = (stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(2))
        wanted, unwanted = known.getsockname()[1], other.getsockname()[1]
        capture.narrow(None if ports is None else [wanted, *range(1, ports)])
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


def test_packets_that_passed_before_the_question_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    monkeypatch.setattr("bothends.trace.capture.packets.AT_ONCE", 1)
    with Capture() as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        for _ in range(5):
            ours.sendto(b"datagram", ours.getsockname())
        seen = [raw for raw in capture.read() if ours.getsockname()[1] in (raw.ports or ())]
        while capture.has_more():
            seen += [raw for raw in capture.read() if ours.getsockname()[1] in (raw.ports or ())]
    assert len(seen) == 5


def test_a_datagram_that_nobody_received_is_shown_as_lost() -> None:
    trace = made_up()
    packet = packets(trace)[0]
    packet.protocol, packet.flags = "udp", ()
    assert not [line for line in drawn(trace) if "never received" in line]
    lost = Packet(9, 2500, "udp", packet.source, packet.destination, 4, b"gone", sender=2, receiver=1)
    trace.add(Moment(lost))
    assert [line for line in drawn(trace) if "gone" in line and "never received" in line]
