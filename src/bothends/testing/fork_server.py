"""A process that forks a child for each engine to run: `python -m bothends.testing.fork_server FD`.

An engine may fork, start threads and handle signals, so it runs in its own process. Forking it from the test
process would be unsound, because that process has threads, and the child would inherit the open descriptors
of every test. Starting an interpreter takes a fifth of a second. So one process is started once, imports
everything, starts no threads, and forks: a few milliseconds for each engine. (The forkserver of
multiprocessing does the same, but imports the caller's main module into every child, and that of a test
runner is large.)

Each child leads its own session, and so a process group, which the harness kills as a whole. This process is
a child subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)), so it reaps orphans of the engines even where init does
not. When the harness exits, this process kills all children that are left.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from bothends.testing import engine_runner

# Bytes: larger than any request, which has a RunSpec and the module search path.
MAX_REQUEST_SIZE: Final = 64 * 1024

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def main(sock: socket.socket) -> None:
    """Handle requests until the harness closes the socket, then kill every child that is left.

    ("fork", path, spec), with the descriptors of a report socket and an output file: fork a child. The reply
    is its pid, or a traceback. ("reap", pid): wait for a child and its process group. The reply is the exit
    status (negative: the number of the signal).
    """
    children: set[int] = set()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.freeze()  # so that the garbage collector does not write to pages shared with the children
    while True:
        data, ancillary, _, _ = sock.recvmsg(MAX_REQUEST_SIZE, socket.CMSG_SPACE(2 * 4))
        if not data:
            break
        request = pickle.loads(data)
        reply: int | str
        if request[0] == "fork":
            _, path, spec = request
            reply = fork(sock, path, spec, _descriptors(ancillary))
            if isinstance(reply, int):
                children.add(reply)
        else:
            reply = reap(request[1])
            children.discard(request[1])
        sock.send(pickle.dumps(reply))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def fork(sock: socket.socket, path: list[str], pickled: bytes, descriptors: Sequence[int]) -> int | str:
    """Fork a child that runs a pickled RunSpec. Returns its pid, or a traceback if it cannot run."""
    reports, output = descriptors
    try:
        sys.path[:] = path
        spec = pickle.loads(pickled)
        engine_runner.preload(spec)
    except Exception:
        return traceback.format_exc()
    else:
        pid = os.fork()
        if pid == 0:
            sock.close()
            _child_main(spec, reports, output)
        # Parent and child both create the process group, so that it exists for both from here on.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    finally:
        os.close(reports)
        os.close(output)


def reap(pid: int) -> int:
    """Wait for a child and for all orphans of its process group. Returns the child's exit status."""
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)
    return os.waitstatus_to_exitcode(status)


def _child_main(spec: Any, reports: int, output: int) -> NoReturn:
    status = 70  # EX_SOFTWARE
    try:
        with contextlib.suppress(PermissionError):
            os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sock = socket.socket(fileno=reports)  # open until _exit(), which the harness sees as EOF
        status = engine_runner.run(spec, sock)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(status)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return list(found)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as request_socket:
        main(request_socket)
