"""A small process that forks others, each to run one engine: `python -m bothends.testing.fork_server FD`.

An engine may fork, thread and handle signals, so it gets a process of its own. Forking it from the
test's process would be unsound, as that has threads, and copies every test's leftovers into it;
starting an interpreter takes a fifth of a second. So one is started once, imports everything, stays
without threads, and forks: some milliseconds a start. (multiprocessing's forkserver does as much, but
imports the caller's main module into every child, and a test runner's is large.)

Each child leads a session of its own, and so a process group, which the watcher ends as a whole. What
an engine's processes leave as orphans becomes ours (PR_SET_CHILD_SUBREAPER, prctl(2)), so that their
ends are noticed wherever init is a program that doesn't. When the watcher is gone, whatever is left is
ended here.
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

# More than any request: an order and the module search path.
MAX_REQUEST_SIZE: Final = 64 * 1024

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def main(sock: socket.socket) -> None:
    """Take requests until the watcher is gone; then end every child that is left.

    ("fork", path, order) with the descriptors of a report line and an error file -> a pid, or text that
    says why not; ("reap", pid) -> the exit status (negative: the signal), waiting for it and for its group.
    """
    children: set[int] = set()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.freeze()  # what is imported is shared with the children, and stays so
    while True:
        data, ancillary, _, _ = sock.recvmsg(MAX_REQUEST_SIZE, socket.CMSG_SPACE(2 * 4))
        if not data:
            break
        request = pickle.loads(data)
        answer: int | str
        if request[0] == "fork":
            _, path, order = request
            answer = fork(sock, path, order, _descriptors(ancillary))
            if isinstance(answer, int):
                children.add(answer)
        else:
            answer = reap(request[1])
            children.discard(request[1])
        sock.send(pickle.dumps(answer))
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def fork(sock: socket.socket, path: list[str], pickled: bytes, descriptors: Sequence[int]) -> int | str:
    """A child that runs the order; its pid, or the reason why it can't be run."""
    reports, errors = descriptors
    try:
        sys.path[:] = path
        order = pickle.loads(pickled)
        engine_runner.preload(order)  # once, here
    except Exception:
        return traceback.format_exc()
    else:
        pid = os.fork()
        if pid == 0:
            sock.close()
            _child_main(order, reports, errors)
        # The session that the watcher will end: made on both sides, so that it is there for both.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    finally:
        os.close(reports)
        os.close(errors)


def reap(pid: int) -> int:
    """The exit status of a child, and the end of all that has been left to us of its process group."""
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)
    return os.waitstatus_to_exitcode(status)


def _child_main(order: Any, reports: int, errors: int) -> NoReturn:
    status = 70  # EX_SOFTWARE
    try:
        with contextlib.suppress(PermissionError):
            os.setsid()
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.close(errors)
        line = socket.socket(fileno=reports)  # open until the very end, which the watcher knows by it
        status = engine_runner.run(order, line)
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
    with socket.socket(fileno=int(sys.argv[1])) as line:
        main(line)
