"""The rules about the path: on traces built packet by packet, and on real wires."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import pytest

from bothends.trace.findings import Finding, evidence_lines, run_rules
from bothends.trace.model import Call, CausalLink, Packet, Point, Socket, SocketAddress, Trace, TracedProcess
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import run
from tests.tools import needs_tool
from tests.trace.faulty_programs import PATH_CASES, PathCase
from tests.trace.running import PYTHON, read_saved
from tests.wire.hosts import needs_hosts

CLIENT, SERVER = SocketAddress("10.0.0.2", 40000), SocketAddress("10.0.0.1", 7000)
MS = 1_000_000

# The others run with `make slow` only.
QUICK = {"retransmission"}


@dataclass
class TraceBuilder:
    """Builds a trace packet by packet. Times are in milliseconds; the delay of the path is 5 ms."""

    trace: Trace = field(default_factory=Trace)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        for number, role in ((1, "server"), (2, "client")):
            self.trace.processes[number] = TracedProcess(number, 100 + number, role)
        self.trace.sockets[1] = Socket(1, "inet", "stream", local=SERVER, peer=CLIENT)
        self.trace.sockets[2] = Socket(2, "inet", "stream", local=CLIENT, peer=SERVER)

    def packet(
        self,
        at: float,
        span: tuple[int, int],
        *flags: str,
        to: str = "server",
        lost: str = "",
        retransmits: Packet | None = None,
        **attributes: object,
    ) -> Packet:
        """Add a packet with these bytes of its stream. It arrives unless it is lost."""
        ends = (CLIENT, SERVER) if to == "server" else (SERVER, CLIENT)
        packet = Packet(
            next(self.numbers), round(at * MS), "tcp", *ends, span[1] - span[0], b"",
            flags or ("ACK",), window=100, offset=span[0], lost=lost,
            interface="client" if to == "server" else "server", reaches=to,
            until=round((at if lost else at + 5) * MS), length=span[1] - span[0] + 52,
            sender=2 if to == "server" else 1, receiver=1 if to == "server" else 2,
        )  # fmt: skip
        packet.raw = b"%d %d" % span
        if retransmits is not None:
            packet.resent, packet.repeats = True, retransmits.number
        for name, value in attributes.items():
            setattr(packet, name, value)
        self.trace.add(Point(packet))
        return packet

    def ack(self, at: float, up_to: int, **attributes: object) -> Packet:
        """Add an acknowledgement of the server."""
        return self.packet(at, (0, 0), to="client", acks=up_to, **attributes)  # type: ignore[arg-type]

    def call(self, at: float, until: float, name: str, socket: int = 2, size: int = 100) -> Call:
        """Add a call on a socket, which has the number of its process: by default the client's."""
        call = Call(
            next(self.numbers), socket, socket, name, round(at * MS), round(until * MS),
            result=size, size=size, socket=socket, descriptor=3,
        )  # fmt: skip
        self.trace.add(Point(call))
        return call

    def findings_of(self, rule: str) -> list[Finding]:
        """Return the findings of a rule."""
        return [each for each in run_rules(self.trace) if each.rule == rule]


def test_retransmission_counts_losses_by_toxic() -> None:
    builder = TraceBuilder()
    lost = [builder.packet(0, (0, 100), lost="loss"), builder.packet(1, (100, 200), lost="bandwidth")]
    builder.packet(2, (200, 300))
    resent = [
        builder.packet(220, (0, 100), retransmits=lost[0]),
        builder.packet(221, (100, 200), retransmits=lost[1]),
    ]
    (finding,) = builder.findings_of("retransmission")
    assert finding.evidence == (lost[0].number, resent[0].number, lost[1].number, resent[1].number)
    assert "2 of 5 segments from client to server" in finding.text
    assert "loss 1, bandwidth 1" in finding.text
    assert "225 ms" in finding.text
    assert evidence_lines(finding, builder.trace)[0].endswith("lost: loss")
    assert not builder.findings_of("spurious-retransmission")


def test_retransmission_in_a_network_with_one_name_shows_the_addresses() -> None:
    builder = TraceBuilder()
    lost = builder.packet(0, (0, 100), lost="loss", interface="lab", reaches="lab")
    builder.packet(220, (0, 100), retransmits=lost, interface="lab", reaches="lab")
    (finding,) = builder.findings_of("retransmission")
    assert "1 of 2 segments from 10.0.0.2:40000 to 10.0.0.1:7000 are" in finding.text


def test_retransmission_on_one_host_names_the_programs_of_each_direction() -> None:
    builder = TraceBuilder()
    one_host: dict[str, Any] = {"interface": "lab", "reaches": "lab"}
    builder.call(0, 1, "sendto")
    builder.call(0, 1, "recvfrom", socket=1)
    for to in ("server", "client"):
        lost = builder.packet(1, (0, 100), to=to, lost="loss", **one_host)
        builder.packet(220, (0, 100), to=to, retransmits=lost, **one_host)
    texts = [each.text for each in builder.findings_of("retransmission")]
    assert [each.partition(" are ")[0] for each in texts] == [
        "1 of 2 segments from the client to the server",
        "1 of 2 segments from the server to the client",
    ]


def test_spurious_retransmission_names_state_of_ack() -> None:
    for when, lost, state in ((6, "loss", "lost 1"), (218, "", "in transit 1"), (300, "", "not sent yet 1")):
        builder = TraceBuilder()
        first = builder.packet(0, (0, 100))
        if when < 220:
            builder.ack(when, 100, lost=lost)
        resent = builder.packet(220, (0, 100), retransmits=first)
        if when > 220:
            builder.ack(when, 100)
        (finding,) = builder.findings_of("spurious-retransmission")
        assert finding.evidence == (first.number, resent.number)
        assert state in finding.text
        assert not builder.findings_of("retransmission")


def test_retransmission_resegmented_data_is_judged_by_bytes() -> None:
    builder = TraceBuilder()
    whole = builder.packet(0, (0, 100))
    lost = builder.packet(1, (100, 200), lost="loss")
    builder.packet(220, (50, 100), retransmits=whole)  # all of it had arrived
    builder.packet(221, (50, 150), retransmits=whole)  # half of it had not
    builder.packet(222, (100, 200), retransmits=lost)  # bytes 150-200 had not
    assert "1 from client to server" in builder.findings_of("spurious-retransmission")[0].text
    assert "2 of 5 segments" in builder.findings_of("retransmission")[0].text


def test_retransmission_duplicated_copy_counts_and_corrupted_does_not() -> None:
    for raw, rule in ((b"0 100", "spurious-retransmission"), (b"0 1x0", "retransmission")):
        builder = TraceBuilder()
        first = builder.packet(0, (0, 100), until=None)
        builder.packet(5, (0, 100), synthesized=True, raw=raw)
        builder.packet(220, (0, 100), retransmits=first)
        assert [each.rule for each in run_rules(builder.trace) if "retrans" in each.rule] == [rule]


def test_retransmission_syn_to_full_accept_queue_is_ignored() -> None:
    builder = TraceBuilder()
    first = builder.packet(0, (0, 0), "SYN")
    builder.packet(1000, (0, 0), "SYN", retransmits=first)
    assert not builder.findings_of("retransmission")
    assert not builder.findings_of("spurious-retransmission")


def test_zero_window_long_stall_is_found() -> None:
    builder = TraceBuilder()
    send = builder.call(0, 1400, "sendto")
    builder.packet(1, (0, 100))
    closed = builder.ack(10, 100, window=0)
    builder.ack(60, 100, window=0)
    read = builder.call(1380, 1381, "recvfrom", socket=1)
    opened = builder.ack(1381, 100)
    (finding,) = builder.findings_of("zero-window")
    assert finding.evidence == (closed.number, send.number, read.number, opened.number)
    assert finding.text.startswith("Server announced a window of 0 once")
    assert "1.38 s" in finding.text


@pytest.mark.parametrize("flags", [("RST",), ("RST", "ACK"), ("SYN", "ACK")])
def test_zero_window_of_rst_and_syn_is_ignored(flags: tuple[str, ...]) -> None:
    builder = TraceBuilder()
    builder.packet(1, (0, 0), *flags, to="client", window=0)
    builder.packet(900, (0, 100))
    assert not builder.findings_of("zero-window")


def test_zero_window_short_stall_is_ignored() -> None:
    builder = TraceBuilder()
    builder.ack(10, 100, window=0)
    builder.ack(600, 100)
    assert not builder.findings_of("zero-window")


def delayed_ack_findings(delay: float, *flags: str, second_waits: bool = True) -> list[Finding]:
    """Return the findings if the first of two sends is acknowledged after `delay` milliseconds."""
    builder = TraceBuilder()
    calls = [builder.call(0, 1, "sendto"), builder.call(2, 3, "sendto")]
    data = builder.packet(1, (0, 100))
    ack = (
        builder.ack(6 + delay, 100)
        if not flags
        else builder.packet(6 + delay, (0, 10), *flags, to="client", acks=100)
    )
    second = builder.packet(12 + delay if second_waits else 3, (100, 200))
    for call, packet in zip(calls, (data, second), strict=True):
        builder.trace.link(CausalLink(call.number, packet.number, "carries"))
    found = builder.findings_of("delayed-ack")
    for each in found:
        assert each.evidence == (data.number, calls[1].number, ack.number, second.number)
    return found


def test_delayed_ack_that_blocks_a_send_is_found() -> None:
    (finding,) = delayed_ack_findings(40)
    assert "only after 40 ms" in finding.text
    assert not delayed_ack_findings(1)  # at once
    assert not delayed_ack_findings(40, "PSH", "ACK")  # with data
    assert not delayed_ack_findings(40, second_waits=False)  # no send waited


def test_mtu_black_hole_repeated_large_packets_are_found() -> None:
    builder = TraceBuilder()
    first = builder.packet(0, (0, 1448), lost="mtu")
    builder.packet(1, (1448, 1500))
    resent = [builder.packet(at, (0, 1448), lost="mtu", retransmits=first) for at in (220, 640)]
    (finding,) = builder.findings_of("mtu-black-hole")
    assert finding.evidence == (first.number, *(each.number for each in resent))
    assert "up to 104 bytes" in finding.text
    assert not builder.findings_of("retransmission")


def test_mtu_black_hole_sender_that_learns_mtu_is_ignored() -> None:
    builder = TraceBuilder()
    lost = [builder.packet(number, (1448 * number, 1448 * (number + 1)), lost="mtu") for number in range(10)]
    builder.packet(11, (0, 1248), retransmits=lost[0])
    assert not builder.findings_of("mtu-black-hole")


# Programs on real wires


def trace_on_wire(case: PathCase, folder: FilePath, wire: str, *, right: bool) -> Trace:
    """Trace a pair of programs on a wire."""
    for name, source in (("server.py", case.server), ("client.py", case.client)):
        part = case.right if right else case.wrong
        (folder / name).write_text(source.replace("{program}", part), encoding="utf-8")
    saved = folder / "run.trace"
    ends = [
        word
        for role in ("server", "client")
        for word in (f"--{role}", shlex.join([*PYTHON, str(folder / f"{role}.py")]))
    ]
    run([*BOTHENDS, "trace", "--wire", wire, "--save", str(saved), *ends])
    return read_saved(saved)


@needs_hosts
@needs_tool("strace")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(each, id=each.rule, marks=() if each.rule in QUICK else pytest.mark.slow)
        for each in PATH_CASES
    ],
)
def test_path_rule_finds_bad_path_only(case: PathCase, tmp_path: FilePath) -> None:
    wrong = trace_on_wire(case, tmp_path, case.wire, right=False)
    found = {each.rule: each for each in run_rules(wrong)}
    assert case.rule in found
    assert evidence_lines(found[case.rule], wrong)
    right = trace_on_wire(case, tmp_path, case.good_wire, right=True)
    # On a busy machine even a good path may cause one spurious retransmission.
    shown = [evidence_lines(each, right) for each in run_rules(right) if each.rule == case.rule]
    assert not any(case.evidence_text in line for lines in shown for line in lines)
