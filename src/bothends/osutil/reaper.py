"""The heir: a process that ends what we have started, should we be killed (SIGKILL), which no handler hears.

    bothends ──> strace ──> the user's server       bothends is killed: the socket to the heir is closed,
        └──────> heir                               and the heir ends the server

1. It is this file, run as a program with the standard library only, in a session of its own: ^C at our
   terminal doesn't reach it. It is started when there is something to tell it.
2. Processes are found anew when they have to be ended, since they fork: by a mark in their environment, or by
   whom they are traced (TracerPid of proc(5)).
3. It holds our end of strace's pipe too. Were the pipe broken, strace would die first and leave its programs
   behind, with every call that was traced failing.
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
_MAX_COMMAND: Final = 1024  # bytes of what it is told at once
_KILL_PASSES: Final = 500  # of 10 ms: who is still being started is found a turn later


def process_tag(suffix: str = "") -> str:
    """What a variable in the environment of a program says that we have started; `more` tells ours apart."""
    return f"{os.getpid()}-{suffix}"


class Reaper:
    """Our side. Use it as a context; where the system starts no heir, all goes on without one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """We end in good order: nothing is left to end."""
        if self._process is None or self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.send(_DONE)
        self._socket.close()
        self._process.wait()
        self._process = self._socket = None

    def kill_tagged(self, variable: str) -> None:
        """Every process in whose environment this variable holds a `mark` of ours."""
        self._send_command(f"mark {variable}={process_tag()}")

    def kill_tracees(self, strace: int, pipe: int, *, attached: bool) -> None:
        """Every process that this one traces, which writes to `pipe`. If it has `attached` itself to them, it
        is told to let them go instead (SIGTERM).
        """
        self._send_command(f"{'attached' if attached else 'strace'} {strace}", pipe)

    def _send_command(self, text: str, *descriptors: int) -> None:
        with contextlib.suppress(OSError):
            if self._socket is None:
                self._start()
            assert self._socket is not None
            socket.send_fds(self._socket, [text.encode()], descriptors)

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        self._socket = ours


def _reaper_main(control: socket.socket) -> None:
    """The heir's side: listen until there is nobody to listen to, and then do what was said."""
    marks: list[bytes] = []
    straces: set[int] = set()
    attached: set[int] = set()
    while True:
        said, _, _, _ = socket.recv_fds(control, _MAX_COMMAND, 1)
        if said == _DONE:
            return
        if not said:
            break
        kind, _, what = said.partition(b" ")
        if kind == b"mark":
            marks.append(what)
        else:
            (attached if kind == b"attached" else straces).add(int(what))
    for pid in attached:
        _signal(pid, signal.SIGTERM)
    for _ in range(_KILL_PASSES):
        left = [pid for pid in _all_pids() if _is_traced(pid, straces) or has_tag(pid, marks)]
        if not left:
            break
        for pid in left:
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
    """Whether a variable in the environment that a process was started with begins like one of these."""
    if tags:
        with contextlib.suppress(OSError):  # what is dead has no environment any more
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return any(word.startswith(mark) for word in words for mark in tags)
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


if __name__ == "__main__":
    _reaper_main(socket.socket(fileno=0))
