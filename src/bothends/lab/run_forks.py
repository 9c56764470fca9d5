"""The process that forks the processes of runs: it has imported everything, so that a run starts sooner.

    python -m bothends.lab.run_forks [--class] [--save-in FOLDER]

Standard input is a UNIX socket of sequenced packets. Each packet has the descriptor that becomes the standard
input and output of a new process. The answer has a descriptor of the process (pidfd_open(2)), and its process
id. It ends when the socket does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback

from bothends.check.sandbox.launcher import preload
from bothends.lab import judging, run
from bothends.lab.runs import PID


def _reap(_number: int, _frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(channel: int, control: socket.socket) -> None:
    """Be the process of a run."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        control.close()
        for standard in (0, 1):
            os.dup2(channel, standard)
        os.close(channel)
        status = run.main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> int:
    """Fork until the socket ends. Returns the exit status."""
    assert judging is not None  # imported to be shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C at the terminal is for the server
    signal.signal(signal.SIGCHLD, _reap)
    preload()
    gc.freeze()
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return 0
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # it may end before it has a descriptor
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _run(descriptors[0], control)
        os.close(descriptors[0])
        handle = os.pidfd_open(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(control, [PID.pack(pid)], [handle])
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
