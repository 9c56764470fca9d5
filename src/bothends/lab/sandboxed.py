"""Start programs in the sandbox, each with a terminal of its own, under an strace outside of it.

1. strace attaches when everything is set up, and lets the program start then: so the set-up is not in the
   trace, and the program sees no tracer among its processes.
2. A program's standard input, output and error are a pseudoterminal: so output appears line by line, as a
   student expects it, and typed text is echoed. It is no controlling terminal, so ^C is not a signal.
3. Processes are killed with process 1 of their namespace (pid_namespaces(7)), whatever they do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bothends.check.sandbox.control_groups import ControlGroup
from bothends.check.sandbox.launcher import Sandbox
from bothends.errors import Unavailable
from bothends.lab.source_lines.records import LineRecords
from bothends.osutil.process_info import read_stat
from bothends.trace.capture.tracees import LOCAL_LAUNCHER, ProcessHandle, TracedProgram, tracer_of
from bothends.trace.session import TraceSession

_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred (unix(7))
_START_TIMEOUT: Final = 10.0  # seconds until everything is set up, and strace has attached
_ATTACH_INTERVAL: Final = 0.001  # seconds


_nice = 0


def set_priority(nice: int) -> None:
    """Set the nice value of all programs that this process starts in the sandbox (sched(7))."""
    global _nice  # noqa: PLW0603  (one process has one kind of programs)
    _nice = nice


def lower_priority(leader: int) -> None:
    """Lower the priority of a program's processes: in their group, and of the group among others.

    Where the kernel schedules by sessions (sched(7), autogroup), a program has one share of the processor,
    however many processes it has.
    """
    if _nice:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PGRP, leader, _nice)
            Path(f"/proc/{leader}/autogroup").write_text(str(_nice), encoding="ascii")


@dataclass(slots=True)
class SandboxedProgram:
    """A program to run: its number, its lane, its command line and its own folder."""

    number: int
    role: str
    argv: list[str]
    folder: Path
    scratch: Path
    lines: LineRecords | None = None
    environment: dict[str, str] = field(default_factory=dict)
    terminal: int = -1  # the lab's end
    leader: int = 0  # its process group, once it has started
    group: ControlGroup | None = None
    first_ids: tuple[int, int] = (0, 0)  # of its first process: here, and in its own namespace


class SandboxLauncher:
    """The launcher of a `TraceSession` for programs in the sandbox.

    Args:
        programs: by role.
        on_start: called with each program that has started.
    """

    attaches = True

    def __init__(
        self,
        sandbox: Sandbox,
        programs: Sequence[SandboxedProgram],
        on_start: Callable[[SandboxedProgram], None],
    ) -> None:
        self._sandbox = sandbox
        self._programs = {each.role: each for each in programs}
        self._on_start = on_start

    def start(
        self,
        role: str,
        strace: Sequence[str],
        argv: Sequence[str],
        *,
        inherit_stdin: bool,
        output: int | None,
    ) -> ProcessHandle:
        """Start a program and attach strace to it. It starts in vain if the sandbox fails."""
        program = self._programs[role]
        gate, inner_gate = open_gate()
        with gate, inner_gate:
            process = self._start_program(program, argv, inner_gate.fileno())
            inner_gate.close()
            self._on_start(program)
            try:
                program.first_ids, tracer = attach_at_gate(gate, strace)
            except OSError:
                kill_group(process.pid)
                raise
        return _TracedProcess(process, tracer)

    def start_untraced(self, program: SandboxedProgram) -> subprocess.Popen[bytes]:
        """Start a program without strace. Raises OSError, BothendsError: it cannot be started."""
        process = self._start_program(program, program.argv, -1)
        self._on_start(program)
        return process

    def _start_program(
        self, program: SandboxedProgram, argv: Sequence[str], gate: int
    ) -> subprocess.Popen[bytes]:
        lines = program.lines
        program.terminal, terminal = open_terminal()
        start = self._sandbox_of(program).prepare(
            argv,
            program.scratch,
            cwd=program.folder,
            environment={"TERM": "dumb", **program.environment},
            gate=gate,
            descriptors=(lines.descriptor,) if lines is not None else (),
        )
        try:
            process = subprocess.Popen(
                start.command,
                cwd=program.folder,
                env=start.environment,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
                pass_fds=start.inherited,
            )
        except OSError:
            if start.group is not None:
                start.group.remove()
            raise
        finally:
            os.close(start.plan)
            os.close(terminal)
        program.leader, program.group = process.pid, start.group
        lower_priority(process.pid)
        return process

    def _sandbox_of(self, program: SandboxedProgram) -> Sandbox:
        from dataclasses import replace

        return replace(self._sandbox, folder=program.folder)

    def signal(self, processes: Sequence[int], number: int) -> None:
        """Send a signal to processes that strace has shown."""
        LOCAL_LAUNCHER.signal(processes, number)


class _TracedProcess:
    """A program's process group and its strace, with the interface of subprocess.Popen."""

    def __init__(self, process: subprocess.Popen[bytes], strace: subprocess.Popen[bytes] | None) -> None:
        self._process = process
        self._strace = strace

    @property
    def pid(self) -> int | None:
        """The pid of strace."""
        return self._strace.pid if self._strace is not None else None

    @property
    def returncode(self) -> int | None:
        """The program's status."""
        return self._process.poll()

    def poll(self) -> int | None:
        """Return the program's status when it has exited, and strace too."""
        if self._strace is not None and self._strace.poll() is None:
            return None
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for both. A program that strace has left is killed."""
        if self._strace is not None:
            self._strace.wait(timeout)
        return self._process.wait(timeout)

    def send_signal(self, sig: int) -> None:
        """Send a signal to strace."""
        if self._strace is not None:
            self._strace.send_signal(sig)

    def kill(self) -> None:
        """Kill all processes of the program."""
        kill_group(self._process.pid)


def add_program(session: TraceSession, kind: str, role: str, argv: Sequence[str]) -> TracedProgram:
    """Add a program to a session: a "server" or a "client"."""
    if kind == "server":
        return session.add_server(role, argv)
    return session.add_client(role, argv, inherit_stdin=False)


def attach_at_gate(
    gate: socket.socket, strace: Sequence[str]
) -> tuple[tuple[int, int], subprocess.Popen[bytes] | None]:
    """Wait until a program is at its gate (`Sandbox.prepare`), attach strace to it, and let it start.

    Returns: the ids of its process, here and in its own namespace, and strace; None if it has not come there.

    Raises:
        OSError, Unavailable: strace cannot attach, or the program has taken too long.
    """
    _, ancillary, _, _ = gate.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    pid = _CREDENTIALS.unpack(ancillary[0][2])[0] if ancillary else 0
    if not pid:
        return (0, 0), None
    ids = pid, _inner_id(pid)
    tracer = subprocess.Popen(
        [*strace, "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait_for_tracer(pid, tracer)
    gate.send(b"1")
    return ids, tracer


def open_gate() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a gate: the lab's, and the one that the program inherits."""
    gate, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    gate.settimeout(_START_TIMEOUT)
    return gate, inner


def open_terminal() -> tuple[int, int]:
    r"""Open a pseudoterminal (pty(7)) that leaves \n as it is. Returns: the lab's end, the program's."""
    lab_end, program_end = os.openpty()
    settings = termios.tcgetattr(program_end)
    settings[1] &= ~termios.ONLCR
    settings[3] &= ~(termios.ISIG | termios.ECHOCTL)
    termios.tcsetattr(program_end, termios.TCSANOW, settings)
    os.set_blocking(lab_end, False)
    return lab_end, program_end


def _wait_for_tracer(pid: int, tracer: subprocess.Popen[bytes]) -> None:
    """Wait until strace has attached, and waits itself.

    It attaches by two calls, PTRACE_SEIZE and PTRACE_INTERRUPT, and sleeps after both only. A program that
    ran on between the two would call execve() unseen, and strace takes each entry of a call for an exit then.
    """
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and tracer.poll() is None:
        if tracer_of(pid) == tracer.pid and read_stat(tracer.pid)[1:2] == ["S"]:
            return
        time.sleep(_ATTACH_INTERVAL)
    tracer.kill()
    tracer.wait()
    raise Unavailable("trace", f"process {pid}", reason="strace can't attach to it in the sandbox")


def _inner_id(pid: int) -> int:
    """Return the id of a process in its own PID namespace (proc(5), NSpid); 0 if it has exited."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[-1]) for line in lines if line.startswith("NSpid:")), 0)


def kill_group(leader: int) -> None:
    """Kill a process group, and so a sandbox with everything in it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
