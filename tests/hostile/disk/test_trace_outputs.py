"""Full disks, stopped readers and closed pipes under each output of `trace`: the traced programs go on."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from bothends.trace.model import Packet
from bothends.trace.rendering.pcapng import PcapngWriter
from tests.hostile.disk.test_observer_files import SMALL_FILES
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT
from tests.tools import needs_tool
from tests.trace.test_trace_file import hostile_trace

pytestmark = needs_tool("strace")

PROGRAM = """
import socket
a, b = socket.socketpair()
for number in range(200):
    a.send(b"x" * 50)
    b.recv(50)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
for number in range(200):
    udp.sendto(b"y" * 100, udp.getsockname())
    udp.recv(100)
open("finished", "w").close()
"""
FILES = ("--svg", "--html", "--pcapng", "--save")


def trace(folder: Path, *options: str, stdout: int = subprocess.DEVNULL, limited: bool = False) -> str:
    """Trace a program, which must finish although the output is incomplete. Returns standard error."""
    limit = SMALL_FILES if limited else []
    words = [*limit, *BOTHENDS, "trace", *options, "--", sys.executable, "-I", "-S", "-c", PROGRAM]
    done = subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert (folder / "finished").exists()
    assert "Traceback" not in done.stderr
    return done.stderr


def has_packets(folder: Path) -> bool:
    """Whether packets can be captured here; otherwise a file has none that could be missing."""
    words = [*BOTHENDS, "trace", "--pcapng", "probe", "--", sys.executable, "-I", "-S", "-c", PROGRAM]
    subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT, check=True)
    return (folder / "probe").stat().st_size > 1000


def blocks_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the body of each block of a pcapng file, which must be whole."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        yield kind, data[at + 8 : at + length - 4]
        at += length


def test_full_disk_under_all_files_is_reported_for_each(tmp_path: Path) -> None:
    options = [word for option in FILES for word in (option, f"out{option}")]
    errors = trace(tmp_path, *options, limited=True)
    whole = set()
    for option, end in (("--svg", "</svg>"), ("--html", "</html>")):
        text = (tmp_path / f"out{option}").read_text(encoding="utf-8")
        if text.rstrip().endswith(end):  # a recording that was cut short may fit as a picture
            whole.add(option)
        else:
            assert text == ""  # no half of a page
    is_recording = "events are missing" in errors  # the file of --save said so itself
    for option in FILES:
        assert errors.count(f"out{option}: EFBIG (File too large); what cannot be written is counted") <= 1
        reported = errors.count(f"bothends: cannot write out{option}: EFBIG") + errors.count(
            f"bothends: cannot write everything to out{option}: EFBIG"
        )
        if option == "--save" and is_recording:
            assert reported <= 1
        else:
            is_due = option not in whole if option != "--pcapng" else f"out{option}" in errors
            assert reported == int(is_due)
    assert not whole or is_recording
    assert list(blocks_of(tmp_path / "out--pcapng"))


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_device_without_space_under_a_picture(option: str, tmp_path: Path) -> None:
    errors = trace(tmp_path, option, "/dev/full", "--calls-only")
    assert errors.count("bothends: cannot write /dev/full: ENOSPC (No space left on device)\n") == 1


def test_closed_pipe_under_json(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*BOTHENDS, "trace", "--json", "--", sys.executable, "-c", PROGRAM],
            cwd=tmp_path, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    # Nothing could be written from the start, so nothing is traced, as with --save.
    assert done.returncode == 1
    assert "cannot write standard output: EPIPE (Broken pipe)" in done.stderr
    assert not (tmp_path / "finished").exists()


def test_pipe_that_is_closed_later_under_json(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    head = subprocess.Popen(["head", "-n", "2"], stdin=reader, stdout=subprocess.PIPE)
    os.close(reader)
    try:
        errors = trace(tmp_path, "--json", stdout=writer)
    finally:
        os.close(writer)
    assert head.communicate(timeout=TIMEOUT)[0].startswith(b'{"bothends-trace": 1}\n')
    assert errors.count("standard output: EPIPE (Broken pipe); what cannot be written is counted") == 1
    assert errors.count("bothends: cannot write everything to standard output: EPIPE") == 1


@pytest.mark.spread("option", one_in=4)
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_stopped_reader_does_not_block_the_programs(option: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # never read until the end
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        writer = os.open(fifo, os.O_WRONLY)
        if option == "--json":
            errors = trace(tmp_path, option, stdout=writer)
            assert errors.count("records are missing: its reader does not read") == 1
        else:
            errors = trace(tmp_path, option, str(fifo))
            assert errors.count(f"bothends: cannot write {fifo}: EAGAIN") == 1
        os.close(writer)
    finally:
        os.close(reader)


class FailingFile:
    """A file that fails to take some of what is written to it."""

    def __init__(self, path: Path, failing: Container[int]) -> None:
        self.path = path
        self._failing = failing
        self._number = 0

    def write(self, data: bytes) -> bool:
        self._number += 1
        if self._number in self._failing:
            return False
        with self.path.open("ab") as file:
            file.write(data)
        return True

    def flush(self) -> None: ...


@pytest.mark.parametrize("failing", [(), (1,), (2,), (3,), (1, 2, 3)])
def test_pcapng_with_failed_writes_is_valid(failing: tuple[int, ...], tmp_path: Path) -> None:
    file = FailingFile(tmp_path / "out", failing)
    trace_model = hostile_trace()
    packet = next(each.event for each in trace_model.points if isinstance(each.event, Packet))
    writer = PcapngWriter(file, trace_model)
    for _ in range(4):
        writer.write(packet)
    file.write(writer.missing_block(len(failing), "the disk was full"))
    kinds = [kind for kind, _ in blocks_of(file.path)]
    written = 4 - len([each for each in failing if each > 1])
    assert kinds == [0x0A0D0D0A, 1, *([6] * written), 5]
    assert b"missing: the disk was full" in file.path.read_bytes()


def test_packets_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    if not has_packets(tmp_path):
        pytest.skip("packets can't be captured here")
    (tmp_path / "finished").unlink()
    errors = trace(tmp_path, "--pcapng", "out", limited=True)
    assert errors.count("bothends: cannot write everything to out: EFBIG") == 1
    kinds = [kind for kind, _ in blocks_of(tmp_path / "out")]
    assert kinds[:2] == [0x0A0D0D0A, 1]
    assert 6 in kinds
