"""A helper process that kills the programs started by bothends if bothends is killed by SIGKILL.

    bothends ──> strace ──> the user's server       if bothends is killed, the kernel closes its socket,
        └──────> reaper                             and the reaper kills the server

1. The reaper is this file, run as a program with the standard library only, in a session of its own, so ^C at
   the terminal does not reach it. It is started with the first command.
2. Processes may fork, so the reaper looks for them when it has to kill them: by a variable in their
   environment, or by their tracer (TracerPid of proc(5)).
3. It holds the read end of strace's pipe too. If the pipe were broken, strace would exit first and leave its
   programs behind, with each traced call failing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

_DONE: Final = b"done"
_MAX_COMMAND: Final = 1024  # bytes of one message
_KILL_PASSES: Final = 500  # x 10 ms; processes still starting are found by a later pass


def process_tag(suffix: str = "") -> str:
    """Return the value of the environment variable that marks the programs of this process.

    `suffix` distinguishes several programs.
    """
    return f"{os.getpid()}-{suffix}"


class Reaper:
    """The client of the reaper process, a context manager. Errors of starting it are ignored."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the reaper process without killing anything."""
        if self._process is None or self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.send(_DONE)
        self._socket.close()
        self._process.wait()
        self._process = self._socket = None

    def kill_tagged(self, variable: str) -> None:
        """Kill all processes whose environment has this variable with a `process_tag` of this process."""
        self._send_command(f"tag {variable}={process_tag()}")

    def kill_tracees(self, strace: int, pipe: int, *, attached: bool) -> None:
        """Kill all processes that an strace traces.

        Args:
            strace: its process id.
            pipe: the read end of the pipe that it writes to.
            attached: whether it has attached to running processes. Then strace gets SIGTERM instead, and
                detaches from them.
        """
        self._send_command(f"{'attached' if attached else 'strace'} {strace}", pipe)

    def _send_command(self, text: str, *descriptors: int) -> None:
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._start()
            assert self._socket is not None
            socket.send_fds(self._socket, [text.encode()], descriptors)

    def _start(self) -> None:
        control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=child_control.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            control.close()
            raise
        finally:
            child_control.close()
        self._socket = control


def _reaper_main(control: socket.socket) -> None:
    """Collect commands until EOF, then kill the processes. Runs in the reaper process."""
    tags: list[bytes] = []
    straces: set[int] = set()
    attached: set[int] = set()
    while True:
        command, _, _, _ = socket.recv_fds(control, _MAX_COMMAND, 1)
        if command == _DONE:
            return
        if not command:
            break
        kind, _, argument = command.partition(b" ")
        if kind == b"tag":
            tags.append(argument)
        else:
            (attached if kind == b"attached" else straces).add(int(argument))
    for pid in attached:
        _signal(pid, signal.SIGTERM)
    for _ in range(_KILL_PASSES):
        found = [pid for pid in _all_pids() if _is_traced(pid, straces) or has_tag(pid, tags)]
        if not found:
            break
        for pid in found:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.01)
    for pid in straces:
        _signal(pid, signal.SIGKILL)


def _all_pids() -> Iterator[int]:
    own = os.getpid()
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own)  # noqa: PTH208


def _is_traced(pid: int, tracers: set[int]) -> bool:
    if tracers:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
                if line.startswith(b"TracerPid:"):
                    return int(line.split()[1]) in tracers
    return False


def has_tag(pid: int, tags: list[bytes]) -> bool:
    """Return whether an environment variable of a process, as NAME=VALUE, starts with one of `tags`."""
    if tags:
        with contextlib.suppress(OSError):  # ENOENT, ESRCH: it has exited
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return any(variable.startswith(tag) for variable in variables for tag in tags)
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


if __name__ == "__main__":
    _reaper_main(socket.socket(fileno=0))
