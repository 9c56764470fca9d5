"""What the sources report is recorded; read back, it gives the trace that the run itself would have given."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Final

import pytest

from bothends.cli.trace import output as output_module
from bothends.cli.trace.command import reopen, run
from bothends.cli.trace.output import TraceOutputs
from bothends.cli.trace.programs import Programs
from bothends.osutil.blocked_calls import BlockedCall, CallKind, DescriptorWait, Need, RawCall
from bothends.trace import load, trace_blocks, trace_file
from bothends.trace import session as session_module
from bothends.trace.capture import tracees
from bothends.trace.capture.arguments import SocketLabel
from bothends.trace.capture.blocked_threads import ThreadSnapshot
from bothends.trace.capture.packets import Capture, RawPacket, TransitEvent
from bothends.trace.capture.running_processes import OpenFiles
from bothends.trace.correlation.timeline import FOREVER
from bothends.trace.findings import run_rules
from bothends.trace.load import AnalysisLoad
from bothends.trace.model import Call, Packet, SocketAddress, Trace
from bothends.trace.opening import OpenedTrace
from bothends.trace.rendering.layout import Filter
from bothends.trace.run_file import RecordingFile, RunFile
from bothends.trace.session import TraceSession
from bothends.trace.source_blocks import LinesOfProcesses, ProgramRecorder, SourceReader, SourceRecorder
from bothends.trace.trace_blocks import HEADER, SOURCE_MAGIC, BlockHeader, BlockWriter
from bothends.trace.trace_file import Period, TraceFileError
from tests.tools import needs_tool
from tests.trace.running import PYTHON, has_packets, read_saved
from tests.trace.sources import open_call_source

SERVER: Final = """
import os, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
def serve(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
for _ in range(2):
    connection, _ = listener.accept()
    if not os.fork():
        serve(connection)
        os._exit(0)
    connection.close()
connection, _ = listener.accept()
thread = threading.Thread(target=serve, args=[connection])
thread.start()
thread.join()
for _ in range(2):
    os.wait()
"""
CLIENT: Final = """
import socket, sys
for number in range(3):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        for _ in range(4):
            connection.sendall(b"round trip %d" % number)
            connection.recv(100)
"""
WAITING_SERVER: Final = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
connection, _ = listener.accept()
while connection.recv(100):
    pass
listener.accept()
"""
ONE_WAY: Final = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"one")
"""
IGNORED_ERROR: Final = """
other = socket.socket()
other.connect_ex(("127.0.0.1", 1))
try:
    other.sendall(b"x")
except OSError:
    pass
"""

pytestmark = [needs_tool("strace")]


class Memory:
    """A trace file in memory."""

    def __init__(self) -> None:
        self.data = trace_blocks.FIRST_LINE

    def write(self, text: bytes, /, *, records: int) -> bool:
        assert records > 0
        self.data += text
        return True

    def restart(self, size: int) -> None:
        self.data = self.data[:size]


def lines_of(trace: Trace) -> list[str]:
    """Return all that a trace holds, as lines."""
    written = io.StringIO()
    writer = trace_file.TraceFileWriter(written, trace)
    for point in trace.points:
        writer.write(point)
    writer.write_end()
    return written.getvalue().splitlines()


def read(data: bytes, period: Period | None = None) -> Trace:
    trace = Trace()
    OpenedTrace(io.BytesIO(data), "a.trace").read(lambda _: None, trace, period)
    return trace


def record(server: str = SERVER, client: str = CLIENT) -> tuple[TraceSession, Memory]:
    """Trace a server and a client, and record what the sources report; it is analysed at once, too."""
    memory = Memory()
    with pytest.MonkeyPatch.context() as patch, open_call_source() as source:
        patch.setattr(AnalysisLoad, "is_too_high", lambda _load: False)
        session = TraceSession(lambda _: None, bpf=source)
        session.add_server("server", [*PYTHON, "-c", server])
        session.add_client("client", [*PYTHON, "-c", client, "{port}"], inherit_stdin=False)
        session.capture = Capture() if has_packets() else None
        session.recorder = SourceRecorder(memory)
        session.run()
        session.end_recording()
    return session, memory


NEW_PORTS: Final = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    with socket.create_connection(listener.getsockname()) as sender, listener.accept()[0] as receiver:
        sender.sendall(b"stream")
        receiver.recv(10)
with socket.socket(type=socket.SOCK_DGRAM) as sender, socket.socket(type=socket.SOCK_DGRAM) as receiver:
    receiver.bind(("127.0.0.1", 0))
    sender.sendto(b"datagram", receiver.getsockname())
    receiver.recv(10)
"""


@pytest.mark.parametrize("records_only", [False, True])
def test_packets_of_ports_that_are_new_are_kept(
    monkeypatch: pytest.MonkeyPatch, *, records_only: bool
) -> None:
    """However late the lines are read that show the ports, and though only some of them are decoded."""
    if not has_packets():
        pytest.skip("packets can't be captured here")
    monkeypatch.setattr(session_module, "_READ_BYTES", 1)
    monkeypatch.setattr(tracees, "_READ_SIZE", 1_000)
    monkeypatch.setattr(AnalysisLoad, "is_too_high", lambda _load: records_only)
    memory = Memory()
    session = TraceSession(lambda _: None)
    session.add_client("both", [*PYTHON, "-c", NEW_PORTS], inherit_stdin=False)
    session.capture = Capture()
    session.recorder = SourceRecorder(memory)
    session.run()
    assert session.records_only == records_only
    session.end_recording()
    packets = [each for each in read(memory.data).events() if isinstance(each, Packet)]
    assert {b"stream", b"datagram"} <= {each.data for each in packets}


@pytest.mark.usefixtures("call_source")
def test_a_recording_gives_the_same_trace() -> None:
    session, memory = record()
    found = read(memory.data)
    assert lines_of(found) == lines_of(session.trace)
    assert {each.role for each in found.processes.values()} == {"server", "server/2", "server/3", "client"}
    moved = [each for each in found.events() if isinstance(each, Call) and each.data]
    assert len(moved) == 4 * 12
    assert found.began_at == found.points[0].at
    # Up to its last block, the file of a run that was killed is a trace too; a cut block is left out.
    part = read(memory.data[: trace_blocks.FIRST_LINE.__len__()] + blocks_of(memory.data)[0])
    assert 0 < len(part.points) <= len(found.points)
    cut = read(memory.data[:-5])
    assert any("interrupted" in each for each in cut.notes)
    assert len(cut.points) <= len(found.points)


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
def test_what_was_blocked_at_the_end_is_recorded() -> None:
    session, memory = record(WAITING_SERVER, ONE_WAY)
    found = read(memory.data)
    assert lines_of(found) == lines_of(session.trace)
    assert found.frozen_at == session.trace.frozen_at is not None
    accepts = [each for each in found.events() if isinstance(each, Call) and each.name.startswith("accept")]
    assert accepts[-1].until is None
    assert [each.rule for each in run_rules(found)] == [each.rule for each in run_rules(session.trace)]


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
def test_a_period_of_a_recording() -> None:
    _, memory = record()
    whole = read(memory.data)
    assert whole.began_at is not None
    middle = whole.points[len(whole.points) // 2].at - whole.began_at
    part = read(memory.data, Period(middle, middle + 2_000_000))
    numbers = {each.event.number for each in part.points}
    expected = {
        each.event.number for each in whole.points if middle <= each.at - whole.began_at <= middle + 2_000_000
    }
    assert numbers == expected != set()
    assert len(part.points) < len(whole.points)


def blocks_of(data: bytes) -> list[bytes]:
    found, at = [], len(trace_blocks.FIRST_LINE)
    while at < len(data):
        header = BlockHeader(*HEADER.unpack_from(data, at))
        size = HEADER.size + header.packed_state + header.packed
        found.append(data[at : at + size])
        at += size
    return found


def recorded_by_hand() -> Memory:
    """Return a recording of a process that ran before, what it was blocked in, and a packet."""
    memory = Memory()
    recorder = SourceRecorder(memory)
    recorder.add_program("process 7", "", from_exec=False)
    recorder.begin(has_packets=True)
    program = ProgramRecorder(recorder, 0)
    here, there = SocketAddress("127.0.0.1", 12000), SocketAddress("127.0.0.1", 5000)
    files = OpenFiles(
        {4: SocketLabel("inet", "stream", 77, 0, here, there)}, set(), {4}, {5: {4: ("EPOLLIN", 4)}}
    )
    program.add_process(7, [7, 8], 1_000_000_000, "web", files)
    label = "4<TCP:[127.0.0.1:12000->127.0.0.1:5000]>"
    assert program.add_lines(
        f'7 1.000002000 recvfrom({label}, "\\x68", 9, 0, NULL, NULL) = 1 <0.000001000>\n'.encode()
    )
    program.add_lines(f"8 1.000004000 recvfrom({label}, ".encode())
    program.add_unfinished()
    data = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 41, 0, 0, 64, 6, 0, bytes([127, 0, 0, 1]), bytes([127, 0, 0, 1])
    )
    data += struct.pack("!HHIIBBHHH", 5000, 12000, 1, 1, 5 << 4, 0x18, 512, 0, 0) + b"h"
    recorder.add_packets([RawPacket(1_000_001_000, "lo", data)])
    raw = RawCall(45, (4, 0, 9, 0, 0, 0), 1 << 40)
    wait = DescriptorWait(4, Need.DATA)
    blocked = BlockedCall("recv", CallKind.DESCRIPTORS, (wait,), 1.5, direct=True)
    recorder.add_blocked(1_000_005_000, [(7, ThreadSnapshot(1, 8, raw, blocked))], [0])
    recorder.end_batch(FOREVER, 1_000_003_000)
    recorder.end({"TcpExtListenDrops": 2}, "time limit", ["a note"])
    return memory


def test_a_process_that_ran_before_is_recorded() -> None:
    found = read(recorded_by_hand().data)
    assert [each.role for each in found.processes.values()] == ["web"]
    (socket,) = found.sockets.values()
    assert (socket.inode, socket.blocks) == (77, False)
    packet = next(each for each in found.events() if isinstance(each, Packet))
    received = next(each for each in found.events() if isinstance(each, Call) and each.data == b"h")
    assert [each.cause for each in found.causes_of(received.number)] == [packet.number]
    unfinished = next(each for each in found.events() if isinstance(each, Call) and each.thread == 8)
    assert (unfinished.until, unfinished.requested, unfinished.timeout_ns) == (None, 9, 1_500_000_000)
    assert (found.counters, found.ended_by, found.notes) == (
        {"TcpExtListenDrops": 2},
        "time limit",
        ["a note"],
    )


def test_lines_of_processes_are_selected_from_any_pieces() -> None:
    lines = [
        b"7 1.000000001 recvfrom(3<TCP:[5]>, \"\\x63\\x6c\\x6f\\x6e\\x65\", 9, 0, NULL, NULL) = 5 <0.1>\n",
        b"7 1.000000002 clone(child_stack=NULL, flags=SIGCHLD) = 8 <0.1>\n",
        b"8 1.000000003 <... vfork resumed>) = 9 <0.1>\n",
        b"9 1.000000004 execve(\"\\x61\", [\"\\x61\"], NULL) = 0 <0.1>\n",
        b"9 1.000000005 close(3) = 0 <0.1>\n",
        b"9 1.000000006 --- SIGTERM {si_signo=SIGTERM} ---\n",
        b"9 1.000000007 +++ exited with 0 +++\n",
        b"8 1.000000008 close(3",
    ]  # fmt: skip
    wanted = b"".join(lines[at] for at in (1, 2, 3, 5, 6))
    generator = random.Random(17)
    for _ in range(20):
        text, found = b"".join(lines), b""
        selector = LinesOfProcesses(text[:9])
        at = 9
        while at < len(text):
            size = generator.randint(1, 60)
            found += selector.feed(text[at : at + size])
            at += size
        assert found == wanted


def test_points_take_the_place_of_a_recording() -> None:
    memory = recorded_by_hand()
    trace = read(memory.data)
    file = RunFile(memory)
    writer = BlockWriter(file, trace)
    for point in trace.points:
        writer.write(point)
    writer.flush()
    assert SOURCE_MAGIC in memory.data  # as long as the run goes on
    assert RecordingFile(file).write(b"more", records=1)
    file.settle()
    assert SOURCE_MAGIC not in memory.data
    writer.write_end()
    writer.flush()
    assert lines_of(read(memory.data)) == lines_of(trace)
    # What is kept instead is the recording.
    other = recorded_by_hand()
    size = len(other.data)
    file = RunFile(other)
    file.keep_source()
    assert file.write(b"points", records=1)
    file.settle()
    assert len(other.data) == size


@pytest.mark.parametrize("seed", range(40))
def test_hostile_recordings_are_refused_or_read(seed: int) -> None:
    generator = random.Random(seed)
    block = blocks_of(recorded_by_hand().data)[0]
    header = BlockHeader(*HEADER.unpack_from(block))
    content = zlib.decompress(block[HEADER.size :])
    rows, data = bytearray(content[: header.rows]), bytearray(content[header.rows :])
    for _ in range(generator.randint(1, 4)):
        target = generator.choice((rows, rows, data))
        at = generator.randrange(len(target))
        target[at : at + generator.randint(0, 3)] = generator.choice(
            (b"", b"9", b"-1", b"null", b"[", b'"', bytes([generator.randrange(256)]), b"1e400", b"9" * 30)
        )
    packed = zlib.compress(bytes(rows + data))
    head = HEADER.pack(
        SOURCE_MAGIC, header.points, 0, len(rows), len(data), 0, len(packed), header.first_at, header.last_at
    )
    with contextlib.suppress(TraceFileError):  # anything else is a fault
        read(trace_blocks.FIRST_LINE + head + packed)


def fast_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every program be too fast to be analysed meanwhile."""
    monkeypatch.setattr(load, "WINDOW", 0.0)
    monkeypatch.setattr(load, "MAX_BUSY", -1.0)
    monkeypatch.setattr(load, "MIN_RATE", -1)


def run_saved(tmp_path: Path, server: str, client: str, cast: Path | None = None) -> Path:
    for name, source in (("server.py", server), ("client.py", client)):
        (tmp_path / name).write_text(source, encoding="utf-8")
    python = " ".join(PYTHON)
    programs = Programs(
        servers=[f"{python} {tmp_path}/server.py"], clients=[f"{python} {tmp_path}/client.py {{port}}"]
    )
    saved = tmp_path / "run.trace"
    outputs = TraceOutputs(Filter(hide_quiet_calls=True), width=100, save=saved, cast=cast)
    assert run(programs, outputs, calls_only=not has_packets()) == 0
    return saved


def is_recording(path: Path) -> bool:
    return SOURCE_MAGIC in {each[:4] for each in blocks_of(path.read_bytes())}


def test_programs_that_are_too_fast_are_recorded_and_drawn_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast_session(monkeypatch)
    monkeypatch.setattr(output_module, "MAX_ANALYSED", 0)
    saved = run_saved(tmp_path, SERVER, CLIENT)
    shown = capsys.readouterr()
    assert "too fast" in shown.out
    assert f"bothends trace --open {saved}" in shown.err
    assert is_recording(saved)
    trace = read_saved(saved)
    assert len([each for each in trace.events() if isinstance(each, Call) and each.data]) == 4 * 12
    assert not trace.notes


def test_a_period_of_a_recording_needs_all_that_is_before_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.trace"
    saved.write_bytes(recorded_by_hand().data)
    other = tmp_path / "other.trace"
    reopen([saved], TraceOutputs(Filter(), save=other), None, None)
    noted = {}
    for path, begin, end in ((saved, 0.001, None), (saved, None, 1.0), (other, 0.001, None)):
        capsys.readouterr()
        reopen([path], TraceOutputs(Filter()), begin, end)
        noted[path, begin] = f"bothends trace --open {path} --save OTHER" in capsys.readouterr().err
    assert noted == {(saved, 0.001): True, (saved, None): False, (other, 0.001): False}


def test_a_long_recording_is_analysed_if_a_file_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast_session(monkeypatch)
    monkeypatch.setattr(output_module, "MAX_ANALYSED", 0)
    saved = run_saved(tmp_path, SERVER, CLIENT, tmp_path / "run.cast")
    assert "round trip" in (tmp_path / "run.cast").read_text(encoding="utf-8")
    assert not is_recording(saved)
    assert "bothends trace --open" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["svg", "html", "pdf", "cast", "pcapng"])
def test_files_need_the_whole_run(name: str) -> None:
    outputs = TraceOutputs(Filter(), save=Path("run.trace"))
    assert not outputs.needs_all_points
    assert dataclasses.replace(outputs, **{name: Path("a")}).needs_all_points  # type: ignore[arg-type]
    assert dataclasses.replace(outputs, summary=True).needs_all_points


def test_a_short_recording_is_drawn_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast_session(monkeypatch)
    saved = run_saved(tmp_path, SERVER, CLIENT)
    shown = capsys.readouterr().out
    assert not is_recording(saved)
    moved = [each for each in read_saved(saved).events() if isinstance(each, Call) and each.data]
    assert len(moved) == 4 * 12
    drawn = [line for line in shown.splitlines() if "round trip" in line and "sendto" in line]
    assert len(drawn) == 2 * 12  # each once


def test_a_run_that_calms_down_is_drawn_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast_session(monkeypatch)
    calm: list[int] = []
    original = output_module.TraceWriter.on_calm

    def on_calm(writer: output_module.TraceWriter, count: int) -> object:
        monkeypatch.setattr(load, "MAX_BUSY", 2.0)  # from now on no load is too high
        calm.append(count)
        return original(writer, count)

    monkeypatch.setattr(output_module.TraceWriter, "on_calm", on_calm)
    waits = CLIENT + "import select\nselect.select([], [], [], 0.6)\n" + ONE_WAY.replace("one", "last")
    saved = run_saved(tmp_path, SERVER.replace("range(2)", "range(3)", 1), waits)
    assert len(calm) == 1
    assert not is_recording(saved)
    shown = capsys.readouterr().out
    assert shown.count('"last"') >= 2
    trace = read_saved(saved)
    moved = [each for each in trace.events() if isinstance(each, Call) and each.data]
    assert len(moved) == 4 * 12 + 3


def test_a_recording_needs_its_reader() -> None:
    rest = io.BytesIO(recorded_by_hand().data[len(trace_blocks.FIRST_LINE) :])
    with pytest.raises(TraceFileError, match="block 1: not part of a trace"):
        trace_blocks.TraceReader(rest, "a.trace", lambda _: None, Trace()).read()


def test_findings_of_a_large_trace_come_from_a_second_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "run.trace"
    refused = ONE_WAY + IGNORED_ERROR
    saved.write_bytes(record(WAITING_SERVER, refused)[1].data)
    shown, pages = [], []
    for limit in (1_000_000, 0):
        monkeypatch.setattr(output_module, "MANY_POINTS", limit)
        page = tmp_path / f"{limit}.html"
        outputs = TraceOutputs(Filter(hide_quiet_calls=True), width=100, html=page)
        reopen([saved], outputs, None, None)
        shown.append(capsys.readouterr().out)
        pages.append(page.read_text(encoding="utf-8"))
    assert "finding" in shown[0]
    assert shown[0] == shown[1]
    assert pages[0] == pages[1]


def test_packets_of_other_namespaces_are_recorded() -> None:
    here, there = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    data = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, here, there)
    data += struct.pack("!HHIIBBHHH", 5000, 12000, 1, 1, 5 << 4, 0x10, 512, 0, 0)
    transits = [
        TransitEvent("sent", (1, 2), 7, "eth0", "", b""),
        TransitEvent("arrived", (1, 2), 7, "eth0", "", b"changed"),
        None,
    ]
    raws = [RawPacket(1_000 + at, "veth", data, each) for at, each in enumerate(transits)]
    memory = Memory()
    recorder = SourceRecorder(memory)
    recorder.add_packets(raws)
    recorder.end_batch(0, 0)
    recorder.flush()
    reader = SourceReader(Trace(), lambda _: None)
    block = blocks_of(memory.data)[0]
    header = BlockHeader(*HEADER.unpack_from(block))
    content = zlib.decompress(block[HEADER.size :])
    assert header.points == 3
    reader.read(content[: header.rows], memoryview(content)[header.rows :])
    assert list(reader.held) == raws


class OnePacket:
    """A capture that has one packet, which NAT has translated."""

    def __init__(self) -> None:
        self._event = os.eventfd(0)
        data = b"\x45" + bytes(19) + struct.pack("!HH", 5000, 12000) + bytes(16)
        transit = TransitEvent("sent", (1, 2), 7, "eth1", "", b"translated")
        self._raws = [RawPacket(time.time_ns(), "eth0", data, transit)]

    def fileno(self) -> int:
        return self._event

    def read(self) -> list[RawPacket]:
        found, self._raws = self._raws, []
        return found

    def count_dropped(self) -> int:
        return 0

    def filter_ports(self, ports: object) -> None:
        """Every packet is wanted."""

    def has_more(self) -> bool:
        return False

    def prepare(self, words: object, /) -> None:
        """Nothing to prepare."""

    def look(self, pids: object, started: object, /) -> float:
        return 1.0

    def close(self) -> None:
        os.close(self._event)


def test_translated_packets_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = list[RawPacket]()
    monkeypatch.setattr(SourceRecorder, "add_packets", lambda _, raws: recorded.extend(raws))
    with open_call_source() as source:
        session = TraceSession(lambda _: None, bpf=source)
        session.add_client("client", ["true"], inherit_stdin=False)
        session.capture = OnePacket()
        session.recorder = SourceRecorder(Memory())
        session.run()
    assert [each.transit.arrived_as for each in recorded if each.transit] == [b"translated"]


def test_namespace_of_a_process_is_recorded() -> None:
    memory = recorded_by_hand()
    recorder = SourceRecorder(memory)
    recorder.add_namespace(7, "blue")
    recorder.end_batch(FOREVER, FOREVER)
    recorder.flush()
    assert [each.namespace for each in read(memory.data).processes.values()] == ["blue"]
