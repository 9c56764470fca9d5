"""Full disks, stopped readers and closed pipes under a trace, a log and a recording: the service goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothends.errors import ConfigurationError
from bothends.impair.recording import Replay
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.trace.running import read_saved

LIMIT = 8192  # bytes of a file, under RLIMIT_FSIZE
DISK = 32 << 10  # bytes of a tmpfs
EXCHANGES = 400
SMALL_FILES = ["sh", "-c", f'ulimit -f {LIMIT // 512}; exec "$@"', "sh"]
ENDPOINT = "tcp://127.0.0.1:0"


def exchange(port: str, count: int = EXCHANGES) -> None:
    """Exchange messages, all of which must be answered."""
    with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT) as client:
        for number in range(count):
            exchange_one(client, f"message {number} of a client".encode())


def exchange_one(client: socket.socket, text: bytes) -> None:
    client.sendall(text)
    answer = b""
    while len(answer) < len(text):
        data = client.recv(len(text) - len(answer))
        assert data, "the server has closed the connection"
        answer += data
    assert answer == text.upper()


def port_of(server: Running) -> str:
    return server.error_line(rb"  (?:proxy: )?tcp://127\.0\.0\.1:(\d+).*")[1].decode()


def stop(server: Running, status: int, *messages: str) -> str:
    """Stop a program: assert its exit status, and that each message was printed once. Returns stderr."""
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == status
    server.stderr.wait(lambda _: None)  # until it is closed
    errors = str(server.stderr)
    for message in messages:
        assert errors.count(message) == 1, errors
    assert "Traceback" not in errors
    return errors


def missing_in_log(path: Path) -> int:
    """Return how many records are missing in a log, all lines of which must be whole."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert any(each["event"] == "received" for each in records)
    return sum(each["count"] for each in records if each["event"] == "missing")


def missing_in_trace(path: Path) -> int:
    """Return how many events are missing in a trace, which must be valid."""
    trace = read_saved(path)
    assert not [each for each in trace.notes if "interrupted" in each]
    assert any(trace.events())
    return sum(int(each.split()[0].replace(",", "")) for each in trace.notes if "missing" in each)


def missing_in_recording(path: Path) -> int:
    """Return how many lines are missing in a recording, which is refused for that."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    with pytest.raises(ConfigurationError, match="missing here"):
        Replay(path)
    return sum(json.loads(line).get("missing", 0) for line in text.splitlines())


MISSING = {"trace": missing_in_trace, "json": missing_in_log, "record": missing_in_recording}


@pytest.fixture
def upstream() -> Iterator[str]:
    """A server behind a proxy. Returns its port."""
    with Running([*BOTHENDS, "serve", "-q", "upper", ENDPOINT]) as server:
        yield port_of(server)


def command(kind: str, path: Path, upstream: str, *options: str) -> list[str]:
    """Return a command line whose observer writes to `path`."""
    if kind == "record":
        to = f"tcp://127.0.0.1:{upstream}"
        return [
            *BOTHENDS,
            "impair",
            "--no-api",
            ENDPOINT,
            to,
            "--slicer",
            "average_size=9",
            "--record",
            str(path),
        ]
    serve = [*BOTHENDS, "serve", "upper", ENDPOINT, *options]
    if kind == "trace":
        return [*serve, "-q", "--trace", str(path)]
    return ["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(path), *serve, "--log", "json"]


@pytest.mark.parametrize(
    ("kind", "engine"),
    [("trace", "epoll"), ("trace", "fork"), ("json", "epoll"), ("json", "fork"), ("record", "")],
)
def test_full_file_is_counted_and_service_goes_on(
    kind: str, engine: str, tmp_path: Path, upstream: str
) -> None:
    path = tmp_path / "out"
    options = ["--engine", engine] if engine else []
    with Running([*SMALL_FILES, *command(kind, path, upstream, *options)]) as server:
        port = port_of(server)
        exchange(port)
        exchange(port, 1)
        errors = stop(
            server, 1, "EFBIG (File too large); what cannot", "bothends: cannot write everything to"
        )
    missing = MISSING[kind](path)
    assert missing > 100
    # A line that gives way at the end may be a part of an event.
    assert f"{missing:,} records are missing" in errors
    assert path.stat().st_size <= 2 * LIMIT  # bash counts in KiB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[list[str], Path, Path]]:
    """A tmpfs of DISK bytes: words that enter its namespaces, its path there, and its path from outside."""
    for tool in ("unshare", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    at = tmp_path / "disk"
    at.mkdir()
    script = f'mount -t tmpfs -o size={DISK} none "$1" && echo ready && read _'
    with Running(["unshare", "-rm", "sh", "-c", script, "sh", str(at)]) as holder:
        try:
            holder.line(rb"ready")
        except AssertionError:
            pytest.skip("a user namespace with a tmpfs is not permitted here")
        pid = holder.process.pid
        enter = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(pid), "--"]
        yield enter, at, Path(f"/proc/{pid}/root{at}")


@pytest.mark.parametrize("kind", MISSING)
def test_disk_with_room_again_gets_the_number_of_missing_records(
    kind: str, small_disk: tuple[list[str], Path, Path], upstream: str
) -> None:
    enter, inside, outside = small_disk
    (outside / "ballast").write_bytes(b"x" * (DISK - 12288))
    with Running([*enter, *command(kind, inside / "out", upstream)]) as server:
        port = port_of(server)
        exchange(port)
        (outside / "ballast").unlink()
        exchange(port, 5)
        errors = stop(server, 1, "ENOSPC (No space left on device); what cannot", "records are missing")
    missing = MISSING[kind](outside / "out")
    assert missing > 100
    assert f"{missing:,} records are missing" in errors
    last = (outside / "out").read_text(encoding="utf-8").splitlines()[-1]
    assert "missing" not in last  # recording went on


@pytest.mark.parametrize("kind", MISSING)
def test_device_without_space(kind: str, upstream: str) -> None:
    with Running(command(kind, Path("/dev/full"), upstream)) as server:
        if kind == "json":
            exchange(port_of(server), 3)
            stop(server, 1, "ENOSPC (No space left on device); what cannot", "records are missing")
            return
        assert server.wait() == 1  # not even the first line can be written: nothing is served
        server.stderr.wait(lambda _: None)
        assert "cannot write /dev/full: ENOSPC" in str(server.stderr)


@pytest.mark.spread("kind", one_in=3)
@pytest.mark.parametrize("kind", MISSING)
def test_stopped_reader_does_not_block_the_service(kind: str, tmp_path: Path, upstream: str) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # never read until the end
    try:
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        with Running(command(kind, path, upstream)) as server:
            port = port_of(server)
            exchange(port, 1500)
            stop(server, 1, "its reader does not read; what cannot", "records are missing: its reader")
    finally:
        os.close(reader)


@pytest.mark.spread("kind", one_in=3)
@pytest.mark.parametrize("kind", MISSING)
def test_closed_pipe_ends_nothing(kind: str, tmp_path: Path, upstream: str) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with Running(command(kind, path, upstream)) as server:
        try:
            port = port_of(server)
        finally:
            os.close(reader)
        exchange(port, 20)
        stop(server, 1, "EPIPE (Broken pipe); what cannot", "missing")


def test_stopped_reader_of_standard_error_does_not_block_the_server(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    words = [*BOTHENDS, "serve", "upper", f"unix://{tmp_path}/s"]
    try:
        with subprocess.Popen(words, stdout=writer, stderr=writer, env=ENVIRONMENT) as server:
            try:
                begun = os.read(reader, 1)  # the banner has been begun
                while not (tmp_path / "s").exists():
                    begun += os.read(reader, 1)
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(TIMEOUT)
                    client.connect(str(tmp_path / "s"))
                    for _ in range(3000):
                        exchange_one(client, b"x" * 200)
                server.send_signal(signal.SIGTERM)
                assert server.wait(TIMEOUT) == 1
            finally:
                server.kill()
        assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK  # others share the description
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("verb", ["serve", "impair"])
def test_closed_standard_error_does_not_end_the_service(verb: str, tmp_path: Path, upstream: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    options = ["upper"] if verb == "serve" else ["--no-api"]
    upstreams = [] if verb == "serve" else [f"tcp://127.0.0.1:{upstream}"]
    words = [*BOTHENDS, verb, *options, f"unix://{tmp_path}/s", *upstreams]
    try:
        with subprocess.Popen(words, stdout=writer, stderr=writer, env=ENVIRONMENT) as server:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(TIMEOUT)
                    while client.connect_ex(str(tmp_path / "s")):
                        assert server.poll() is None, "it has ended"
                    for _ in range(10):
                        exchange_one(client, b"x" * 200)
                server.send_signal(signal.SIGTERM)
                assert server.wait(TIMEOUT) in (0, 1, 143)
            finally:
                server.kill()
    finally:
        os.close(writer)


PROGRAM = """
import os, socket
a, b = socket.socketpair()
for number in range(1000):
    a.send(os.urandom(4000))  # not to be compressed
    b.recv(4000)
open("finished", "w").close()
"""


def test_traced_program_runs_to_its_end(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    limited = ["sh", "-c", 'ulimit -f 3000; exec "$@"', "sh"]
    words = [*limited, *BOTHENDS, "trace", "--calls-only", "--save", "out", "--"]
    done = subprocess.run(
        [*words, sys.executable, "-c", PROGRAM],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert (tmp_path / "finished").exists()
    missing = missing_in_trace(tmp_path / "out")
    assert f"{missing:,} records are missing" in done.stderr
