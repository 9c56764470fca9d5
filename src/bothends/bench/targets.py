"""What is measured beside each other: a command that is run for it, or an address where something runs.

A command listens on a port of its own choice and says where, in a line of its output that holds the
endpoint (`tcp://127.0.0.1:40001`), as `bothends serve` does; or it is told the port, where `{port}` stands in
it. What it says afterwards is thrown away. It runs in a process group of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed, TimeoutExpired, Unavailable, UsageError
from bothends.escaping import escape
from bothends.osutil.reaper import Reaper, process_tag
from bothends.sockets.free_port import free_port

STARTUP_TIMEOUT: Final = 20.0
"""Seconds until a command that was started must have said where it listens."""

TERM_TIMEOUT: Final = 2.0
"""Seconds from being told to end until it is made to: what it still does is of no interest."""

REFERENCE_SERVERS: Final = Path(__file__).with_name("reference_servers")
_TAG_VARIABLE: Final = "BOTHENDS_BENCH"  # in the environment of every target: whose it is
_ENDPOINT: Final = re.compile(r"\b(?:tcp|udp|unix)://\S+")


@dataclass(frozen=True)
class BenchTarget:
    """A server to be measured.

    `commands`: transport -> the words that run it; or `address`, where it runs already. `most`: connections
    that it serves at once (None: no limit of its own). `missing`: why it can't run here. `source`: a C file,
    compiled before, whose program's path takes the place of `{program}`.
    """

    name: str
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    address: Endpoint | None = None
    max_connections: int | None = None
    unavailable_reason: str = ""
    source: Path | None = None

    def unsupported_reason(self, transport: str, connections: int) -> str:
        """Why it can't serve so many connections of this transport; "" if it can."""
        if self.unavailable_reason:
            return self.unavailable_reason
        here = self.address.scheme if self.address is not None else ""
        if transport != here and transport not in dict(self.commands):
            return f"it has no {transport}"
        if self.max_connections is not None and connections > self.max_connections:
            return f"it serves {self.max_connections:,} connection{'s' * (self.max_connections != 1)} at once"
        return ""


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """Where a target runs; `pid` None if it isn't ours."""

    endpoint: Endpoint
    pid: int | None


def reference_servers() -> list[BenchTarget]:
    """What others would use: see `reference_servers/__init__.py`. Those whose library isn't here say so."""
    made = [
        _python_server("asyncio-streams", "asyncio_streams", "", "tcp"),
        _python_server("asyncio-protocol", "asyncio_protocol", "", "tcp", "udp"),
        _python_server("uvloop-protocol", "uvloop_protocol", "uvloop", "tcp", "udp"),
        _python_server("gevent", "gevent_greenlets", "gevent", "tcp"),
        _python_server("twisted", "twisted_protocol", "twisted", "tcp", "udp"),
        _python_server("trio", "trio_streams", "trio", "tcp"),
        _python_server("socketserver", "socketserver_threads", "", "tcp", "udp", max_connections=2000),
    ]
    compiler = "" if _find_compiler() else "there is no C compiler"
    for name, file, transports in (
        ("c-epoll", "c_epoll.c", ("tcp", "udp")),
        ("c-uring", "c_uring.c", ("tcp",)),
    ):
        commands = tuple((each, ("{program}", each)) for each in transports)
        made.append(BenchTarget(name, commands, unavailable_reason=compiler, source=REFERENCE_SERVERS / file))
    return made


def parse_target(text: str) -> BenchTarget:
    """A target of the user's: `name=command {port}`, or `name=tcp://host:port`. Raises CallerError."""
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise UsageError(f"a target is name=command or name=endpoint, not {text!r}")
    if re.match(r"[a-z+]+://\S+$", rest):
        return BenchTarget(name, address=Endpoint.parse(rest))
    words = tuple(shlex.split(rest))
    return BenchTarget(name, (("tcp", words), ("udp", words)))


@contextlib.contextmanager
def run_target(target: BenchTarget, transport: str, folder: Path, cpu: int | None) -> Iterator[RunningTarget]:
    """Run a target (if it isn't an address) on one processor, and end it.

    `folder` keeps programs that were compiled. Raises Unavailable, SystemRefused, TimeLimit.
    """
    if target.address is not None:
        yield RunningTarget(target.address, None)
        return
    program = str(compile_source(target.source, folder)) if target.source is not None else ""
    port = str(free_port()) if any("{port}" in word for word in dict(target.commands)[transport]) else ""
    words = [
        word.replace("{program}", program).replace("{port}", port).replace("{transport}", transport)
        for word in dict(target.commands)[transport]
    ]
    process = _start(words, cpu)
    try:
        if port:
            yield RunningTarget(
                _wait_until_listening(Endpoint(transport, host="127.0.0.1", port=int(port)), process, words),
                process.pid,
            )
        else:
            yield RunningTarget(_wait_for_endpoint(process, words, transport), process.pid)
    finally:
        _terminate(process)


def compile_source(source: Path, folder: Path) -> Path:
    """The program of a C file, compiled once. Raises Unavailable, with what the compiler said."""
    program = folder / source.stem
    if program.exists():
        return program
    compiler = _find_compiler()
    if compiler is None:
        raise Unavailable(
            "compile", source.name, reason="there is no C compiler", hint="install gcc or clang"
        )
    done = subprocess.run(
        [compiler, "-O2", "-std=gnu11", "-o", str(program), str(source)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.splitlines() or [b"no word"]
        said = escape(next((line for line in lines if b"error" in line), lines[0])[-200:])
        raise Unavailable("compile", source.name, reason=said)
    return program


def raise_fd_limit() -> int:
    """As many descriptors as the system lets us have; how many those are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def choose_cpus() -> tuple[int | None, int | None]:
    """Which processor is the server's and which the generator's; None where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


@contextlib.contextmanager
def pinned_to_cpu(cpu: int | None) -> Iterator[None]:
    """On this processor, and back where we were; None: anywhere."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def kill_targets_on_exit() -> Iterator[None]:
    """While this lasts, targets that are running end with this process even if it is killed."""
    with Reaper() as heir:
        heir.kill_tagged(_TAG_VARIABLE)
        yield


def _python_server(
    name: str, module: str, library: str, *transports: str, max_connections: int | None = None
) -> BenchTarget:
    missing = "" if not library or importlib.util.find_spec(library) else f"{library} isn't installed"
    command = (sys.executable, str(REFERENCE_SERVERS / f"{module}.py"))
    return BenchTarget(
        name,
        tuple((each, (*command, each)) for each in transports),
        max_connections=max_connections,
        unavailable_reason=missing,
    )


def _find_compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _start(words: Sequence[str], cpu: int | None) -> subprocess.Popen[bytes]:
    try:
        with pinned_to_cpu(cpu):  # which it inherits (sched_setaffinity(2))
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, _TAG_VARIABLE: process_tag()},
                start_new_session=True,
            )
    except OSError as error:
        raise SystemCallFailed("run", words[0], error.errno or 0) from error


def _wait_for_endpoint(process: subprocess.Popen[bytes], words: Sequence[str], transport: str) -> Endpoint:
    """Wait for the line that says where it listens; then read on, so that it never waits for us."""
    assert process.stdout is not None
    found: list[Endpoint] = []
    told: list[str] = []
    known = threading.Event()

    def read(lines: IO[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace")
            if len(told) < 20:
                told.append(text)
            if not found and (match := _ENDPOINT.search(text)) and match[0].startswith(f"{transport}:"):
                found.append(Endpoint.parse(match[0].rstrip(".,;)")))
                known.set()
        known.set()

    threading.Thread(target=read, args=[process.stdout], daemon=True).start()
    if not known.wait(STARTUP_TIMEOUT):
        raise TimeoutExpired(words[0], "waiting for the line that says where it listens", STARTUP_TIMEOUT)
    if not found:
        said = escape("".join(told)[-200:].encode().strip()) or "nothing"
        raise Unavailable("run", shlex.join(words), reason=f"it ended and said: {said}")
    return found[0]


def _wait_until_listening(
    endpoint: Endpoint, process: subprocess.Popen[bytes], words: Sequence[str]
) -> Endpoint:
    """Wait until the command listens on the port that it was given."""
    threading.Thread(target=lambda: process.stdout and process.stdout.read(), daemon=True).start()
    deadline = time.monotonic() + STARTUP_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as sock:
            if endpoint.is_datagram:  # it listens when the port can't be had any more
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", endpoint.port or 0))
                    time.sleep(0.02)
                    continue
                return endpoint
            if sock.connect_ex(("127.0.0.1", endpoint.port)) == 0:
                return endpoint
        time.sleep(0.02)
    if process.poll() is not None:
        reason = f"it ended with status {process.returncode} and had not listened on port {endpoint.port}"
        raise Unavailable("run", shlex.join(words), reason=reason)
    raise TimeoutExpired(
        shlex.join(words), f"waiting until it listens on port {endpoint.port}", STARTUP_TIMEOUT
    )


def _terminate(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(TERM_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        with contextlib.suppress(OSError):
            process.stdout.close()
