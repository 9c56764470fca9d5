"""Pipes between processes of a program: pipe(2), inherited by fork() and exec, copied by dup(). Pure.

1. A pipe has two ends, each a `Socket` of the family "pipe": the end that is written to, and the one that is
   read from. The descriptor tables hold them apart from sockets (`OpenFile.pipe`), so that a wait for a pipe
   is not taken for a wait for a socket.
2. Only what a transfer moves is drawn: no waits, no close(). A pipe is drawn if several processes hold its
   ends when its first bytes are moved, and one of them uses sockets, other than the C library's to ask for
   names. So a pipe by which a process wakes itself up is not drawn, nor is one of a shell that only starts
   programs.
3. A pipe that was not created during the trace is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from bothends.trace.capture import arguments
from bothends.trace.capture.call_data import fill_data
from bothends.trace.capture.descriptors import DescriptorTable, OpenFile, SocketRegistry
from bothends.trace.capture.strace import CallEnded
from bothends.trace.model import Call, Socket, SocketAddress, Trace, TracedProcess, trim_oldest

CREATING: Final = frozenset({"pipe", "pipe2"})
MOVING: Final = frozenset({"read", "readv", "write", "writev"})
MAX_PIPES: Final = 20_000  # of which it is remembered whether they are drawn

Holders: TypeAlias = Callable[[], Iterable[tuple[TracedProcess, DescriptorTable]]]


class PipeTracker:
    """The pipes of a program. `holders` returns its processes, each with its descriptors."""

    def __init__(self, trace: Trace, sockets: SocketRegistry, holders: Holders) -> None:
        self._trace = trace
        self._sockets = sockets
        self._holders = holders
        self._is_drawn: dict[int, bool] = {}  # by inode
        self._inodes = itertools.count(1 << 40)  # for those whose label does not show it

    def add(self, line: CallEnded, table: DescriptorTable) -> None:
        """Add the pipe that a call has created."""
        if line.error or line.result != 0:
            return
        words = arguments.split_arguments(line.text)
        ends = arguments.labelled_set(words[0] if words else "")
        if len(ends) != 2:
            return
        inode = arguments.pipe_inode(ends[0][1]) or next(self._inodes)
        for (number, _), identity in zip(ends, (inode, -inode), strict=True):
            socket = self._sockets.new("pipe", "stream")
            socket.inode, socket.peer_inode = identity, -identity
            socket.set_local(SocketAddress(f"pipe:[{inode}]"))
            table.put(number, OpenFile(close_on_exec="O_CLOEXEC" in line.text, pipe=socket))

    def transfer(self, line: CallEnded, process: TracedProcess, table: DescriptorTable) -> Call | None:
        """Return the call that has moved bytes through a pipe; None if it is not drawn. Its number is 0."""
        if line.name not in MOVING or line.error or not line.result or line.result < 0 or line.until is None:
            return None
        words = arguments.split_arguments(line.text)
        number = arguments.descriptor(words[0])[0] if words else None
        open_file = table[number] if number is not None else None
        if open_file is None or open_file.pipe is None or not self._draws(open_file.pipe):
            return None
        pipe = open_file.pipe
        self._trace.sockets[pipe.number] = pipe
        call = Call(0, process.number, line.pid, line.name, line.at, line.until)
        call.arguments = tuple(map(arguments.display_text, words))
        call.descriptor, call.socket = number, pipe.number
        fill_data(call, words)
        call.result = call.size = line.result
        if line.name.startswith("read"):
            call.data = call.data[: line.result]
        return call

    def _draws(self, pipe: Socket) -> bool:
        inode = abs(pipe.inode)
        found = self._is_drawn.get(inode)
        if found is None:
            found = self._is_between_processes(inode)
            trim_oldest(self._is_drawn, MAX_PIPES)
            self._is_drawn[inode] = found
        return found

    def _is_between_processes(self, inode: int) -> bool:
        """Return whether several processes hold a pipe, one of which uses sockets."""
        found = {
            process.number: _uses_sockets(process, table)
            for process, table in self._holders()
            if any(abs(each.inode) == inode for each in table.pipes())
        }
        return len(found) > 1 and any(found.values())


def _uses_sockets(process: TracedProcess, table: DescriptorTable) -> bool:
    """Whether a process has made calls on sockets that the diagram shows."""
    if not process.role:
        return False
    return table.opened > 0 or any(each.is_shown for each in table.sockets().values())
