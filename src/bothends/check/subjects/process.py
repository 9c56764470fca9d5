"""The process of a program under test: started in its own session, and killed with all its descendants.

Its output is read all the time, so that it never blocks on a full pipe, and stored up to a limit. Its exit is
reported by a pidfd (pidfd_open(2)), which refers to this process even if its process id is reused.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from bothends.check.sandbox.control_groups import ControlGroup
from bothends.check.sandbox.launcher import Sandbox, SandboxedStart, with_hosts_file
from bothends.check.sandbox.monitor import ResourceMonitor
from bothends.errors import SystemCallFailed
from bothends.escaping import escape
from bothends.osutil import reaper
from bothends.osutil.process_info import all_pids, descendants, is_running, read_stat, thread_ids
from bothends.osutil.reexec import self_command

MAX_OUTPUT: Final = 64 << 20  # bytes: reading endless output would delay all other cases
_RETAINED: Final = 16_384  # bytes of output that are stored, from the beginning and from the end each
_MAX_PROCESSES: Final = 4096  # processes of one program
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
# An environment variable, which all descendants inherit, even if their parents have exited.
_TAG_VARIABLE: Final = "BOTHENDS_CHECK"


class OutputCapture:
    """The output of a program on one descriptor. Stores the beginning and the end of it.

    `size` is the number of bytes read; `on_overflow` is called once `MAX_OUTPUT` is exceeded.
    """

    def __init__(self, descriptor: int, on_overflow: Callable[[], None]) -> None:
        self.size = 0
        self._on_overflow = on_overflow
        self._head = bytearray()
        self._tail: deque[int] = deque(maxlen=_RETAINED)
        self._descriptor = descriptor
        self._closed = asyncio.Event()
        self._changed = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._changed.set()
        if not data:
            self.close()
            return
        self.size += len(data)
        if self.size > MAX_OUTPUT:
            self.close()
            self._on_overflow()
            return
        room = _RETAINED - len(self._head)
        self._head += data[:room]
        self._tail.extend(data[room:][-_RETAINED:])

    @property
    def data(self) -> bytes:
        """The stored output, with a line in place of omitted bytes."""
        gap = self.size - len(self._head) - len(self._tail)
        middle = f"\n... {gap:,} bytes left out ...\n".encode() if gap else b""
        return bytes(self._head) + middle + bytes(self._tail)

    async def wait_for(self, predicate: Callable[[bytes], bool], timeout: float) -> bool:
        """Return whether the stored output satisfies `predicate` within `timeout` seconds, or at EOF."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not predicate(self.data) and not self._closed.is_set():
                    self._changed.clear()
                    await self._changed.wait()
        return predicate(self.data)

    async def wait_eof(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for EOF, because a descendant may hold the descriptor open."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), timeout)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if not self._closed.is_set():
            self._closed.set()
            self._changed.set()
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)


class ProgramProcess:
    """A running program. Start it with `start_program`, and end it with `kill_tree`.

    `leader` is the process id of its session; `kill_reason` says why the checker killed it.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        tag: str,
        sandbox: Sandbox | None = None,
        group: ControlGroup | None = None,
    ) -> None:
        self.process = process
        self.leader = process.pid
        self.kill_reason = ""
        self._sandboxed = sandbox is not None
        self._program_pid: int | None = None if sandbox else process.pid
        self._tag = tag
        self._monitor = (
            ResourceMonitor(sandbox.limits, self.process_tree, self._kill_group, group) if sandbox else None
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = OutputCapture(os.dup(process.stdout.fileno()), self._kill_on_overflow)
        self.stderr = OutputCapture(os.dup(process.stderr.fileno()), self._kill_on_overflow)
        process.stdout.close()
        process.stderr.close()
        self._exited = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def _on_exit(self) -> None:
        self.process.poll()
        self._close_pidfd()
        if self._monitor is not None and not self.kill_reason:
            self.kill_reason = self._monitor.exit_reason()
        self._exited.set()

    def _close_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def pid(self) -> int:
        """The process id of the program itself; in the sandbox it is the launcher's grandchild."""
        if self._program_pid is None:
            pids = [self.leader, *descendants(self.leader, _MAX_PROCESSES)]
            if len(pids) < 3:
                return self.leader
            self._program_pid = pids[2]
        return self._program_pid

    def _kill_group(self, reason: str) -> None:
        """Kill the process group. In the sandbox it includes process 1, and the kernel kills all others."""
        self.kill_reason = reason
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, signal.SIGKILL)

    def _kill_on_overflow(self) -> None:
        self._kill_group(f"over the limit of {MAX_OUTPUT >> 20} MiB of output")

    @property
    def running(self) -> bool:
        """Whether the process has not exited."""
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while the process is running."""
        status = self.process.poll()
        # As a shell, process 1 of the sandbox exits with 128 plus the number of the signal.
        return 128 - status if status is not None and self._sandboxed and status > 128 else status

    @property
    def exit_description(self) -> str:
        """How the process exited; "" while it is running."""
        status = self.status
        if status is None:
            return ""
        if self.kill_reason:
            return f"killed by the checker: {self.kill_reason}"
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
            return f"killed by signal {-status}"
        return f"exit status {status}"

    @property
    def stderr_tail(self) -> str:
        """The last lines of its standard error, escaped."""
        lines = self.stderr.data.strip().splitlines()[-12:]
        return "\n".join(escape(line) for line in lines)

    async def wait(self, timeout: float) -> bool:
        """Return whether the process exits within `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout)
        return self._exited.is_set()

    def type_text(self, text: str) -> None:
        """Write a short text to its standard input, which stays open, as a keyboard does."""
        if self.process.stdin is not None and text:
            with contextlib.suppress(OSError):  # it has exited
                os.set_blocking(self.process.stdin.fileno(), False)
                os.write(self.process.stdin.fileno(), text.encode())

    async def feed_stdin(self, data: bytes) -> None:
        """Write `data` to its standard input and close it. The process may exit without reading it."""
        if self.process.stdin is None:
            return
        stdin, self.process.stdin = self.process.stdin, None
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write_all, stdin.fileno(), data)
        with contextlib.suppress(OSError):
            stdin.close()

    def process_tree(self, *, include_detached: bool = False) -> list[int]:
        """Return the process ids of the program and its descendants, sorted.

        `include_detached` includes processes that were reparented, which are recognised by their session or
        by the tag in their environment. It reads every process of the system.
        """
        found = {self.leader, *descendants(self.leader, _MAX_PROCESSES)}
        if include_detached or not self.running:
            found |= set(_tagged_processes(self._tag, self.leader))
        return sorted(found)

    async def finish_trace(self) -> None:
        """Interrupt the tracer (SIGINT), and wait until it has written its page."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGINT)
        await self.wait(10.0)

    def is_idle(self) -> bool:
        """Whether every thread of the program and its descendants is asleep or a zombie."""
        states = [read_stat(pid, tid)[1:2] for pid in self.process_tree() for tid in thread_ids(pid)]
        return bool(states) and all(state in (["S"], ["Z"], []) for state in states)

    async def kill_tree(self) -> None:
        """Kill the program and its descendants, and wait until they have exited."""
        for _ in range(400):  # because processes may fork during a pass, and take a moment to exit
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, signal.SIGKILL)
            remaining = [pid for pid in self.process_tree(include_detached=True) if _kill(pid)]
            if not remaining:
                break
            await asyncio.sleep(0.005)
        await self.wait(5.0)
        if self._monitor is not None:
            await self._monitor.stop()
        self.process.poll()
        self._close_pidfd()
        self.stdout.close()
        self.stderr.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


def trace_command(command: Sequence[str], page: Path | None) -> list[str]:
    """Return the command that traces this one, or the same command if `page` is None.

    It writes the calls and packets to an HTML page, and beside it a trace file for `bothends trace --open`.
    """
    if page is None:
        return list(command)
    outputs = ("--html", str(page), "--save", str(page.with_suffix(".trace")))
    return [*self_command(), "trace", *outputs, "--", *command]


def start_program(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] = {},
    stdin: bool = False,
    sandbox: Sandbox | None = None,
    scratch_dir: Path | None = None,
    build: bool = False,
    hosts_file: Path | None = None,
) -> ProgramProcess:
    """Start a program in its own session.

    Args:
        cwd: its working directory, if not the checker's.
        environment: variables added to the checker's environment, or to the sandbox's.
        stdin: whether its standard input is a pipe, for `feed_stdin` or `type_text`;
            otherwise it is /dev/null.
        sandbox: the sandbox to start it in.
        scratch_dir: in a sandbox, a folder for this start only.
        build: whether the program changes `scratch_dir`.
        hosts_file: a replacement for /etc/hosts.

    Raises:
        SystemCallFailed: it cannot be started.
    """
    tag = reaper.process_tag(secrets.token_hex(8))
    environment = {**environment, _TAG_VARIABLE: tag}
    start = SandboxedStart(list(command), {**os.environ, **environment})
    if sandbox is not None and scratch_dir is not None:
        start = sandbox.prepare(
            command, scratch_dir, cwd=cwd, environment=environment, hosts_file=hosts_file, build=build
        )
        start.environment[_TAG_VARIABLE] = tag
    elif hosts_file is not None:
        start = with_hosts_file(command, hosts_file)
        start.environment.update(environment)
    try:
        process = subprocess.Popen(
            start.command,
            cwd=cwd,
            env=start.environment,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=start.inherited,
        )
    except (OSError, ValueError) as error:
        if start.group is not None:
            start.group.remove()
        number = error.errno or 0 if isinstance(error, OSError) else 22
        raise SystemCallFailed("start", command[0], number, "is the command right?") from error
    finally:
        if start.plan >= 0:
            os.close(start.plan)
    return ProgramProcess(process, tag, sandbox, start.group)


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Make this process a child subreaper (prctl(2)), and kill all adopted orphans on exit.

    Nothing else finds a daemon that has cleared its environment. If this process is killed, the reaper kills
    the tagged processes.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with reaper.Reaper() as child_reaper:
            child_reaper.kill_tagged(_TAG_VARIABLE)
            yield
    finally:
        for _ in range(100):  # because the children of killed processes are reparented to this one
            for pid in descendants(os.getpid(), _MAX_PROCESSES):
                _kill(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
                continue
            break
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:65_536]) :]


def _kill(pid: int) -> bool:
    """Kill a process. Returns: whether it was running."""
    if not is_running(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _tagged_processes(tag: str, session: int) -> Iterator[int]:
    """Yield the processes of a session, and those with the tag in their initial environment."""
    variable = f"{_TAG_VARIABLE}={tag}".encode()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session or reaper.has_tag(pid, [variable]):
                yield pid
