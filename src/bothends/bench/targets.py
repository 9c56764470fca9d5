"""The servers that are measured: a command to run, or the address of a running server.

A command listens on a port that it chooses and prints a line with the endpoint (`tcp://127.0.0.1:40001`), as
`bothends serve` does; or it gets the port by `{port}` in its arguments. Later output is discarded. The
command runs in its own process group, which is killed when the measurement ends.
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
from bothends.install_hints import install_command
from bothends.osutil.reaper import Reaper, process_tag
from bothends.sockets.free_port import free_port

STARTUP_TIMEOUT: Final = 20.0
"""Seconds for a command to print its endpoint, or to listen on its port."""

TERM_TIMEOUT: Final = 2.0
"""Seconds from SIGTERM to SIGKILL: short, because the measurement is over."""

REFERENCE_SERVERS: Final = Path(__file__).with_name("reference_servers")
_TAG_VARIABLE: Final = "BOTHENDS_BENCH"  # environment variable that marks every target for the reaper
_ENDPOINT: Final = re.compile(r"\b(?:tcp|udp|unix)://\S+")


@dataclass(frozen=True)
class BenchTarget:
    """A server to measure.

    `commands`: pairs of transport and argument list; or `address` of a running server. `max_connections`:
    concurrent connections it can serve (None: unlimited). `unavailable_reason`: why it cannot run here; "" if
    it can. `source`: a C file to compile; `{program}` in a command is replaced by the path of the program,
    `{folder}` by that of a temporary folder.
    """

    name: str
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    address: Endpoint | None = None
    max_connections: int | None = None
    unavailable_reason: str = ""
    source: Path | None = None

    def unsupported_reason(self, transport: str, connections: int) -> str:
        """Return why it cannot serve this number of connections by this transport; "" if it can."""
        if self.unavailable_reason:
            return self.unavailable_reason
        scheme = self.address.scheme if self.address is not None else ""
        if transport != scheme and transport not in dict(self.commands):
            return f"no {transport.upper()} support"
        if self.max_connections is not None and connections > self.max_connections:
            plural = "s" * (self.max_connections != 1)
            return f"limited to {self.max_connections:,} concurrent connection{plural}"
        return ""


@dataclass(frozen=True, slots=True)
class RunningTarget:
    """A running target. `pid` is None for a server that bothends did not start."""

    endpoint: Endpoint
    pid: int | None


def reference_servers() -> list[BenchTarget]:
    """Return the servers of `reference_servers/`, including those whose library is missing."""
    servers = [
        _python_server("asyncio-streams", "asyncio_streams", "", "tcp"),
        _python_server("asyncio-protocol", "asyncio_protocol", "", "tcp", "udp"),
        _python_server("uvloop-protocol", "uvloop_protocol", "uvloop", "tcp", "udp"),
        _python_server("gevent", "gevent_greenlets", "gevent", "tcp"),
        _python_server("twisted", "twisted_protocol", "twisted", "tcp", "udp"),
        _python_server("trio", "trio_streams", "trio", "tcp"),
        _python_server("socketserver", "socketserver_threads", "", "tcp", "udp", max_connections=2000),
    ]
    missing = "" if _find_compiler() else "no C compiler found"
    for name, file, transports in (
        ("c-epoll", "c_epoll.c", ("tcp", "udp")),
        ("c-uring", "c_uring.c", ("tcp",)),
    ):
        commands = tuple((each, ("{program}", each)) for each in transports)
        servers.append(
            BenchTarget(name, commands, unavailable_reason=missing, source=REFERENCE_SERVERS / file)
        )
    return servers


def parse_target(text: str) -> BenchTarget:
    """Parse a target: `name=command {port}`, or `name=tcp://host:port`. Raises UsageError."""
    name, _, rest = text.partition("=")
    if not name or not rest:
        raise UsageError(f"a target must be NAME=COMMAND or NAME=ENDPOINT, not {text!r}")
    if re.match(r"[a-z+]+://\S+$", rest):
        return BenchTarget(name, address=Endpoint.parse(rest))
    command = tuple(shlex.split(rest))
    return BenchTarget(name, (("tcp", command), ("udp", command)))


@contextlib.contextmanager
def run_target(target: BenchTarget, transport: str, folder: Path, cpu: int | None) -> Iterator[RunningTarget]:
    """Run a target pinned to a CPU, unless it is an address, and terminate it afterwards.

    `folder` caches compiled programs. Raises Unavailable, SystemCallFailed, TimeoutExpired.
    """
    if target.address is not None:
        yield RunningTarget(target.address, None)
        return
    program = str(compile_source(target.source, folder)) if target.source is not None else ""
    port = (
        str(free_port()) if any("{port}" in argument for argument in dict(target.commands)[transport]) else ""
    )
    command = [
        argument.replace("{program}", program)
        .replace("{port}", port)
        .replace("{transport}", transport)
        .replace("{folder}", str(folder))
        for argument in dict(target.commands)[transport]
    ]
    process = _start(command, cpu)
    try:
        if port:
            yield RunningTarget(
                _wait_until_listening(
                    Endpoint(transport, host="127.0.0.1", port=int(port)), process, command
                ),
                process.pid,
            )
        else:
            yield RunningTarget(_wait_for_endpoint(process, command, transport), process.pid)
    finally:
        _terminate(process)


def compile_source(source: Path, folder: Path) -> Path:
    """Compile a C file, unless its program exists. Raises Unavailable with the compiler's error."""
    program = folder / source.stem
    if program.exists():
        return program
    compiler = _find_compiler()
    if compiler is None:
        raise Unavailable("compile", source.name, reason="no C compiler found", hint="install gcc or clang")
    result = subprocess.run(
        [compiler, "-O2", "-std=gnu11", "-o", str(program), str(source)],
        capture_output=True,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.splitlines() or [b"no error message"]
        error = escape(next((line for line in lines if b"error" in line), lines[0])[-200:])
        raise Unavailable("compile", source.name, reason=error)
    return program


def raise_fd_limit() -> int:
    """Raise the soft limit of open files to the hard limit. Returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def choose_cpus() -> tuple[int | None, int | None]:
    """Return the CPUs for the server and the generator; None for both if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


@contextlib.contextmanager
def pinned_to_cpu(cpu: int | None) -> Iterator[None]:
    """Pin this thread to a CPU, and restore its affinity afterwards. None: no pinning."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def kill_targets_on_exit() -> Iterator[None]:
    """Kill running targets when this process exits, even by SIGKILL."""
    with Reaper() as reaper:
        reaper.kill_tagged(_TAG_VARIABLE)
        yield


def _python_server(
    name: str, module: str, library: str, *transports: str, max_connections: int | None = None
) -> BenchTarget:
    missing = ""
    if library and importlib.util.find_spec(library) is None:
        missing = f"{library} is not installed: {install_command('rivals')}"
    command = (sys.executable, str(REFERENCE_SERVERS / f"{module}.py"))
    return BenchTarget(
        name,
        tuple((each, (*command, each)) for each in transports),
        max_connections=max_connections,
        unavailable_reason=missing,
    )


def _find_compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _start(command: Sequence[str], cpu: int | None) -> subprocess.Popen[bytes]:
    try:
        with pinned_to_cpu(cpu):  # child processes inherit the affinity (sched_setaffinity(2))
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, _TAG_VARIABLE: process_tag()},
                start_new_session=True,
            )
    except OSError as error:
        raise SystemCallFailed("run", command[0], error.errno or 0) from error


def _wait_for_endpoint(process: subprocess.Popen[bytes], command: Sequence[str], transport: str) -> Endpoint:
    """Wait for the line with the endpoint. Output is read until EOF, so that the process never blocks."""
    assert process.stdout is not None
    endpoints: list[Endpoint] = []
    output: list[str] = []
    ready = threading.Event()

    def read(lines: IO[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace")
            if len(output) < 20:
                output.append(text)
            if not endpoints and (match := _ENDPOINT.search(text)) and match[0].startswith(f"{transport}:"):
                endpoints.append(Endpoint.parse(match[0].rstrip(".,;)")))
                ready.set()
        ready.set()

    threading.Thread(target=read, args=[process.stdout], daemon=True).start()
    if not ready.wait(STARTUP_TIMEOUT):
        raise TimeoutExpired(command[0], "waiting for a line of output with its endpoint", STARTUP_TIMEOUT)
    if not endpoints:
        shown = escape("".join(output)[-200:].encode().strip()) or "none"
        reason = f"it exited without listening; its output: {shown}"
        raise Unavailable("run", shlex.join(command), reason=reason)
    return endpoints[0]


def _wait_until_listening(
    endpoint: Endpoint, process: subprocess.Popen[bytes], command: Sequence[str]
) -> Endpoint:
    """Wait until the command listens on the port it was given."""
    threading.Thread(target=lambda: process.stdout and process.stdout.read(), daemon=True).start()
    deadline = time.monotonic() + STARTUP_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        kind = socket.SOCK_DGRAM if endpoint.is_datagram else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as sock:
            if endpoint.is_datagram:  # the command has bound the port once another bind fails
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", endpoint.port or 0))
                    time.sleep(0.02)
                    continue
                return endpoint
            if sock.connect_ex(("127.0.0.1", endpoint.port)) == 0:
                return endpoint
        time.sleep(0.02)
    if process.poll() is not None:
        reason = f"it exited with status {process.returncode} without listening on port {endpoint.port}"
        raise Unavailable("run", shlex.join(command), reason=reason)
    raise TimeoutExpired(
        shlex.join(command), f"waiting for it to listen on port {endpoint.port}", STARTUP_TIMEOUT
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
