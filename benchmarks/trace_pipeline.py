"""Measure what `bothends trace` costs: `python -m benchmarks.trace_pipeline`.

Prints four figures of an echo over one connection, with one call and one packet for each way:

    source to file   events a second, of processor time: strace's lines and packets parsed, correlated, put in
                     order and written to a trace file; drawn, too, as on a terminal
    live             wall clock of `bothends trace --save`, to that of strace alone writing two files
    open             wall clock of `bothends trace --open --html`, and the size of the page
    disk             bytes of the trace file for an event

The machine should be idle; figures of processor time (user and system) suffer less if it is not.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import math
import os
import pstats
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bothends.cli.trace.output import TraceOutputs, TraceWriter
from bothends.trace.capture.packets import RawPacket
from bothends.trace.capture.strace import OPTIONS, StraceParser
from bothends.trace.model import Trace
from bothends.trace.rendering.layout import Filter
from bothends.trace.session import TraceSession

BATCH: Final = 200  # round trips between two readings of the sources, about as in a real run
SERVER: Final = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
"""
CLIENT: Final = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number in range(int(sys.argv[2])):
        connection.sendall(b"round trip %06d\\n" % number)
        connection.recv(65536)
"""
_HERE, _THERE = ("127.0.0.1", 50_000), ("127.0.0.1", 12_000)
_BEGIN: Final = 1_795_255_220_000_000_000


class Recording:
    """What strace and the kernel report of an echo: lines of two programs, and packets."""

    def __init__(self, round_trips: int) -> None:
        self.batches: list[tuple[bytes, bytes, list[RawPacket], int]] = []
        here, there = (":".join(map(str, each)) for each in (_HERE, _THERE))
        self._client, self._server = f"3<TCP:[{here}->{there}]>", f"4<TCP:[{there}->{here}]>"
        self._at, self._sequences = _BEGIN, [1000, 2000]
        self._lines: tuple[list[str], list[str]] = ([], [])
        self._packets: list[RawPacket] = []
        self._open()
        for number in range(round_trips):
            self._round_trip(b"round trip %06d\n" % number)
            if number % BATCH == BATCH - 1:
                self._end_batch()
        for end, label in enumerate((self._client, self._server)):
            self._line(end, f"close({label}) = 0", 5)
            self._packet(end, 0x11, b"")
            self._line(end, "+++ exited with 0 +++", 0)
        self._end_batch()

    def _open(self) -> None:
        address = "".join(f"\\x{byte:02x}" for byte in b"127.0.0.1")
        sockaddr = '{{sa_family=AF_INET, sin_port=htons({}), sin_addr=inet_addr("{}")}}'
        server, client = sockaddr.format(_THERE[1], address), sockaddr.format(_HERE[1], address)
        self._line(1, "socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3<TCP:[7]>", 5)
        self._line(1, f"bind(3<TCP:[7]>, {server}, 16) = 0", 5)
        self._line(1, "listen(3<TCP:[127.0.0.1:12000]>, 5) = 0", 5)
        self._line(0, "socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3<TCP:[8]>", 5)
        self._line(0, f"connect(3<TCP:[8]>, {server}, 16) = 0", 50)
        for end, flags in ((0, 0x02), (1, 0x12), (0, 0x10)):
            self._packet(end, flags, b"")
        self._line(1, f"accept4(3<TCP:[127.0.0.1:12000]>, {client}, [16], 0) = {self._server}", 50)

    def _round_trip(self, data: bytes) -> None:
        text = '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'
        size = len(data)
        for end, label, peer in ((0, self._client, self._server), (1, self._server, self._client)):
            self._line(end, f"sendto({label}, {text}, {size}, 0, NULL, 0) = {size}", 40)
            self._at -= 30_000
            self._packet(end, 0x18, data)
            self._line(1 - end, f"recvfrom({peer}, {text}, 65536, 0, NULL, NULL) = {size}", 35)

    def _line(self, end: int, text: str, microseconds: int) -> None:
        self._at += 2_000
        seconds, fraction = divmod(self._at, 1_000_000_000)
        duration = f" <0.{microseconds:06d}417>" if microseconds else ""
        self._lines[end].append(f"{4711 + end}  {seconds}.{fraction:09d} {text}{duration}\n")
        self._at += microseconds * 1000

    def _packet(self, end: int, flags: int, data: bytes) -> None:
        self._at += 1_000
        source, destination = (_HERE, _THERE) if end == 0 else (_THERE, _HERE)
        sequence, acknowledged = self._sequences[end], self._sequences[1 - end]
        tcp = struct.pack(
            "!HHIIBBHHH12x", source[1], destination[1], sequence, acknowledged, 8 << 4, flags, 512,
            self._at >> 10 & 0xFFFF, 0,
        )  # fmt: skip
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 52 + len(data), sequence & 0xFFFF, 0, 64, 6, 0,
            socket.inet_aton(source[0]), socket.inet_aton(destination[0]),
        )  # fmt: skip
        self._packets.append(RawPacket(self._at, "lo", ip + tcp + data))
        self._sequences[end] += len(data) + (flags & 3 > 0)

    def _end_batch(self) -> None:
        client, server = ("".join(lines).encode() for lines in self._lines)
        self.batches.append((client, server, self._packets, self._at))
        self._lines, self._packets = ([], []), []


def source_to_file(recording: Recording, path: Path, *, draw: bool) -> tuple[int, float]:
    """Run a recording through the pipeline. Returns the number of events, and processor seconds."""
    trace = Trace()
    outputs = TraceOutputs(Filter(hide_quiet_calls=True), width=120, save=path)
    writer = TraceWriter(outputs, trace, ["client", "server"], programs_run=True)
    session = TraceSession(writer.write, trace=trace)
    programs = [session.add_client(role, [role], inherit_stdin=False) for role in ("client", "server")]
    parsers = [StraceParser() for _ in programs]
    session.capture = _NoCapture()
    session.analysis.correlator.has_packets = True
    stdout = os.dup(1)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        try:
            with writer:
                if not draw:
                    writer._layout = None
                start = time.process_time()
                for client, server, packets, at in recording.batches:
                    for program, parser, lines in zip(programs, parsers, (client, server), strict=True):
                        for point in program.decoder.decode(parser.feed(lines)):
                            session.analysis.correlator.add(point)
                    for raw in packets:
                        session._on_packet(raw)
                    session.analysis.emit_until(at - 30_000_000)
                session.analysis.emit_until(1 << 63)
                for each in writer._writers:
                    each.flush()
                taken = time.process_time() - start
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
    return sum(1 for _ in trace.events()), taken


class _NoCapture:
    """A source of packets that has none: they come from a recording."""

    def fileno(self) -> int:
        return -1

    def read(self) -> list[RawPacket]:
        return []

    def count_dropped(self) -> int:
        return 0

    def filter_ports(self, ports: object) -> None:
        pass

    def has_more(self) -> bool:
        return False

    def prepare(self, _words: Iterable[str], /) -> None:
        pass

    def look(self, _pids: Iterable[int], _started: Iterable[int], /) -> float:
        return math.inf

    def close(self) -> None:
        pass


def _timed(command: Sequence[str]) -> tuple[float, float]:
    """Run a command. Returns its wall clock, and its processor time with that of its children, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after, taken = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def live(folder: Path, round_trips: int) -> Iterator[str]:
    """Trace an echo with strace alone, and with bothends. Yields lines with the figures."""
    (folder / "server.py").write_text(SERVER, encoding="utf-8")
    (folder / "client.py").write_text(CLIENT, encoding="utf-8")
    python = [sys.executable, "-I", "-S"]
    strace = ["strace", *OPTIONS, "--seccomp-bpf", "-o"]
    start = time.monotonic()
    with subprocess.Popen(
        [*strace, str(folder / "1"), "--", *python, str(folder / "server.py")], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().decode().strip()
        command = [
            *strace,
            str(folder / "2"),
            "--",
            *python,
            str(folder / "client.py"),
            port,
            str(round_trips),
        ]
        subprocess.run(command, check=True)
    alone = time.monotonic() - start
    yield f"strace alone: {alone:.2f} s"
    words = " ".join(python)
    with_bothends, processor = _timed(
        [
            sys.executable, "-m", "bothends", "trace", "--save", str(folder / "live.trace"),
            "--server", f"{words} {folder}/server.py",
            "--client", f"{words} {folder}/client.py {{port}} {round_trips}",
        ]
    )  # fmt: skip
    yield f"bothends trace --save: {with_bothends:.2f} s, {processor:.2f} s of processor time"
    yield f"ratio: {with_bothends / alone:.2f}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_pipeline", description=__doc__)
    parser.add_argument("--round-trips", type=int, default=20_000)
    parser.add_argument("--only", choices=("file", "drawn", "live", "open"), action="append")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("--keep", type=Path, help="leave the trace file there")
    given = parser.parse_args()
    chosen = given.only or ["file", "drawn", "open", "live"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = given.keep or folder / "echo.trace"
        recording = Recording(given.round_trips) if {"file", "drawn", "open"} & {*chosen} else None
        profiler = cProfile.Profile()
        for draw in (False, True):
            if recording is not None and ("drawn" if draw else "file") in chosen:
                if given.profile:
                    profiler.enable()
                count, taken = source_to_file(recording, path, draw=draw)
                profiler.disable()
                drawn = ", and drawn" if draw else ""
                print(f"source to file{drawn}: {count:,} events, {count / taken:,.0f} a second", flush=True)
        if "open" in chosen and recording is not None:
            if not path.exists():
                source_to_file(recording, path, draw=False)
            page = folder / "page.html"
            command = [sys.executable, "-m", "bothends", "trace", "--open", str(path), "--html", str(page)]
            taken, processor = _timed(command)
            events = sum(map(len, itertools.chain(each[2] for each in recording.batches))) + sum(
                each[0].count(b"\n") + each[1].count(b"\n") for each in recording.batches
            )
            size = page.stat().st_size
            print(f"open: {taken:.2f} s, {processor:.2f} s of processor time, page {size:,} bytes")
            print(f"disk: {path.stat().st_size / events:.1f} bytes an event")
        if "live" in chosen:
            for line in live(folder, given.round_trips):
                print(line, flush=True)
        if given.profile:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
