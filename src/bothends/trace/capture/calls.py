"""Lines of strace to calls on sockets, each with its socket, its data and its addresses. Pure.

    lines ──> Reader.take() ──> moments (a call begins, a call ends, a process changes)

1. A child's first lines may come before its parent's fork() has returned, and only that says who the child
   is. Lines of an unknown process wait for it.
2. A call that takes long is told twice: when it begins, and when it ends. One `Call` is both.
3. What happens on descriptors that are no sockets is left out, but for those that wait for sockets, and
   what a program writes to a terminal, which the drawing must know to keep out of its way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from bothends.trace.capture import arguments
from bothends.trace.capture.descriptors import Descriptors, Held, Sockets
from bothends.trace.capture.strace import Began, Ended, Left, Line, Signalled
from bothends.trace.model import Call, Change, Family, Kind, Moment, Process, Socket, Trace, What

SENDING: Final = frozenset({"write", "writev", "send", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice"})
RECEIVING: Final = frozenset({"read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"})
ACCEPTING: Final = frozenset({"accept", "accept4"})
DUPLICATING: Final = frozenset({"dup", "dup2", "dup3"})
WAITING: Final = frozenset(
    {"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "_newselect"}
)
FORKING: Final = frozenset({"fork", "vfork", "clone", "clone3"})
REAPING: Final = frozenset({"wait4", "waitid", "waitpid"})
# Calls whose first argument is a descriptor (splice: the third), on a socket of which they are drawn.
ON_SOCKETS: Final = (
    SENDING
    | RECEIVING
    | ACCEPTING
    | DUPLICATING
    | {
        "bind",
        "listen",
        "connect",
        "shutdown",
        "close",
        "getsockopt",
        "setsockopt",
        "getsockname",
        "getpeername",
    }
    | {"fcntl", "ioctl", "epoll_ctl"}
)
# The names of all calls that may be drawn.
KNOWN: Final = ON_SOCKETS | WAITING | FORKING | REAPING | {"socket", "socketpair"}
# What asks or sets something and moves nothing: hidden by --quiet-calls.
QUIET: Final = (
    frozenset({"getsockopt", "setsockopt", "getsockname", "getpeername", "fcntl", "ioctl", "epoll_ctl"})
    | DUPLICATING
    | WAITING
)

# Signals that say nothing of a conversation. (Java's machine uses SIGSEGV for itself; whoever dies of it is
# told of anyway.)
UNREMARKABLE: Final = frozenset({"SIGCHLD", "SIGWINCH", "SIGCONT", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGPROF"})
WAITING_LINES: Final = 10_000  # lines of a process that nobody has introduced yet

_FAMILIES: Final[dict[str, Family]] = {
    "AF_INET": "inet",
    "AF_INET6": "inet6",
    "AF_UNIX": "unix",
    "AF_LOCAL": "unix",
    "AF_NETLINK": "netlink",
}
_KINDS: Final[dict[str, Kind]] = {
    "SOCK_STREAM": "stream",
    "SOCK_DGRAM": "datagram",
    "SOCK_SEQPACKET": "seqpacket",
    "SOCK_RAW": "raw",
}


class Reader:
    """Reads the lines of one strace into a trace that others may share.

    Args:
        trace: gets the processes and sockets.
        sockets: all that were met, shared as well.
        numbers: gives each event its number.
        role: what the first process with a socket is called; the next ones are `role/2` and so on.
        command: the command line of the first process.
    """

    def __init__(
        self, trace: Trace, sockets: Sockets, numbers: Iterator[int], role: str, command: str = ""
    ) -> None:
        self._trace = trace
        self._sockets = sockets
        self._numbers = numbers
        self._role = role
        self._command = command
        self._lanes = itertools.count(1)
        self._processes: dict[int, Process] = {}  # by thread
        self._tables: dict[int, Descriptors] = {}  # by thread
        self._calls: dict[int, Call] = {}  # begun and not ended, by thread
        self._orphans: dict[int, list[Line]] = {}
        self.threads: dict[int, int] = {}  # of each process, by its number: how many it has
        self.unfinished_line = False  # whether what was last written to a terminal was no whole line

    def take(self, lines: Iterable[Line]) -> Iterator[Moment]:
        """What these lines tell, in their order."""
        for line in lines:
            if line.pid not in self._processes:
                if self._processes:
                    waiting = self._orphans.setdefault(line.pid, [])
                    if len(waiting) < WAITING_LINES:
                        waiting.append(line)
                    continue
                yield from self._begin(line.pid, line.at, None, Descriptors())
            yield from self._take(line)

    def adopt(self, pid: int, threads: Iterable[int], at: int) -> Iterator[Moment]:
        """A process that ran before us, and the threads that it has already."""
        table = Descriptors()
        yield from self._begin(pid, at, None, table)
        for thread in threads:
            if thread != pid:
                self._processes[thread] = self._processes[pid]
                self._tables[thread] = table
                self.threads[self._processes[pid].number] += 1

    def end(self) -> Iterator[Moment]:
        """strace has ended: whoever still waits for an introduction gets none."""
        for pid in list(self._orphans):
            lines = self._orphans.pop(pid)
            yield from self._begin(pid, lines[0].at, None, Descriptors())
            for line in lines:
                yield from self._take(line)

    @property
    def processes(self) -> set[int]:
        """The pids of the processes that live, as far as we know."""
        return {pid for pid, each in self._processes.items() if each.pid == pid and each.status is None}

    @property
    def held(self) -> set[int]:
        """The numbers of the sockets that a descriptor refers to, or a call that lasts."""
        tables = {id(each): each for each in self._tables.values()}
        found = {each.number for table in tables.values() for each in table.sockets().values()}
        return found | {each.socket for each in self._calls.values() if each.socket}

    @property
    def running(self) -> set[int]:
        """The numbers of the processes that live, as far as we know."""
        return {each.number for each in self._processes.values()}

    def table(self, pid: int) -> Descriptors:
        """The descriptors of a process."""
        return self._tables[pid]

    def _begin(self, pid: int, at: int, parent: Process | None, table: Descriptors) -> Iterator[Moment]:
        command = parent.command if parent else self._command
        number = next(reversed(self._trace.processes), 0) + 1
        process = Process(number, pid, "", command, parent.number if parent else None, at)
        self._trace.processes[process.number] = process
        self._processes[pid] = process
        self._tables[pid] = table
        self.threads[process.number] = 1
        yield Moment(self._change(at, process, "began", f"process {pid}", thread=pid))

    def _take(self, line: Line) -> Iterator[Moment]:
        process = self._processes[line.pid]
        match line:
            case Began():
                self._mind_the_terminal(line)
                call = self._call(line, process)
                if call is not None:
                    yield Moment(call)
            case Ended():
                yield from self._ended(line, process)
            case Signalled():
                if line.signal not in UNREMARKABLE:
                    yield Moment(self._change(line.at, process, "signal", line.signal, thread=line.pid))
            case Left():
                yield from self._left(line, process)

    def _give_role(self, process: Process) -> None:
        """A process that uses a socket has a lane, and the first of them bears the program's name: a shell or
        another wrapper that only starts it has none.
        """
        if not process.role:
            number = next(self._lanes)
            process.role = self._role if number == 1 else f"{self._role}/{number}"

    def _left(self, line: Left, process: Process) -> Iterator[Moment]:
        self._calls.pop(line.pid, None)
        del self._processes[line.pid]
        self._tables.pop(line.pid, None)
        self.threads[process.number] -= 1
        if line.signal:
            import signal

            process.status = -int(getattr(signal, line.signal, 0))
        elif line.pid == process.pid and line.status is not None:
            process.status = line.status
        if self.threads[process.number] <= 0:
            del self.threads[process.number]
            how = f"killed by {line.signal}" if line.signal else f"exit status {process.status}"
            yield Moment(self._change(line.at, process, "ended", how, process.status, line.pid))

    def _call(self, line: Began | Ended, process: Process) -> Call | None:
        """The call of a line: a new one, or the one that has begun."""
        call = self._calls.get(line.pid)
        if call is None or call.at != line.at:
            call = Call(0, process.number, line.pid, line.name, line.at)
            if not self._describe(call, line.text, self._tables[line.pid]):
                return None
            call.number = next(self._numbers)
            if call.socket is not None or call.name in ("socket", "socketpair"):
                self._give_role(process)
            if isinstance(line, Began):
                self._calls[line.pid] = call
            return call
        if isinstance(line, Began):
            return None  # told already
        self._describe(call, line.text, self._tables[line.pid])
        return call

    def _ended(self, line: Ended, process: Process) -> Iterator[Moment]:
        known = line.pid in self._calls and self._calls[line.pid].at == line.at
        call = self._call(line, process)
        self._calls.pop(line.pid, None)
        table = self._tables[line.pid]
        if line.name in FORKING and line.result is not None and line.result > 0:
            yield from self._forked(line, process, call, known)
            return
        self._mind_the_terminal(line)
        if line.name in ("execve", "execveat") and line.result == 0:
            table.executed()
            if self._tables[line.pid] is table:
                words = arguments.split(line.text)
                process.command = arguments.shown(words[1]) if len(words) > 1 else ""
            yield Moment(self._change(line.at, process, "exec", process.command, thread=line.pid))
            return
        if line.name == "rt_sigaction":
            self._note_ignored_children(line, process)
            return
        if line.name.startswith("io_uring") and not process.uses_io_uring:
            process.uses_io_uring = True
            warning = "uses io_uring, which strace can't see"
            self._trace.notes.append(f"process {process.pid} {warning}: what it does there is missing")
            yield Moment(self._change(line.at, process, "note", warning, thread=line.pid))
        if call is None:
            self._keep_tables(line, table, None)
            return
        if not known:
            yield Moment(call)
        self._finish(call, line, table)
        if call.until is not None:
            yield Moment(call, is_end=True)

    def _forked(self, line: Ended, process: Process, call: Call | None, known: bool) -> Iterator[Moment]:
        child, table = line.result, self._tables[line.pid]
        assert child is not None
        if "CLONE_THREAD" in line.text:
            self._processes[child] = process
            self._tables[child] = table
            self.threads[process.number] += 1
        else:
            if call is not None:
                if not known:
                    yield Moment(call)
                call.until, call.result, call.made = line.until, child, child
                if call.until is not None:
                    yield Moment(call, is_end=True)
            shared = "CLONE_FILES" in line.text
            yield from self._begin(child, line.at, process, table if shared else table.forked())
        for waiting in self._orphans.pop(child, []):
            if child in self._processes:
                yield from self._take(waiting)

    def _note_ignored_children(self, line: Ended, process: Process) -> None:
        words = arguments.split(line.text)
        if words[:1] == ["SIGCHLD"] and len(words) > 1 and words[1] != "NULL":
            process.ignores_children = "sa_handler=SIG_IGN" in words[1] or "SA_NOCLDWAIT" in words[1]

    def _describe(self, call: Call, text: str, table: Descriptors) -> bool:
        """Fill in what the arguments say. Whether it is a call that matters here."""
        words = arguments.split(text)
        call.arguments = tuple(map(arguments.shown, words))
        name = call.name
        if name in ("socket", "socketpair"):
            return True
        if name in FORKING:
            return "CLONE_THREAD" not in text
        if name in REAPING:
            return True
        if name in WAITING:
            return self._describe_waiting(call, words, table)
        if not words or name not in ON_SOCKETS:
            return False
        at = 2 if name == "splice" else 0
        number, label = arguments.descriptor(words[at] if at < len(words) else "")
        if name == "epoll_ctl":
            number, label = arguments.descriptor(words[2]) if len(words) > 2 else (None, "")
        call.descriptor = number
        if call.socket is not None:
            socket = self._trace.sockets.get(call.socket)  # by now the number may be another socket's
        else:
            socket = self._socket(number, label, table)
        if socket is None:
            return False
        call.socket = socket.number
        self._describe_data(call, words)
        if name in ("connect", "bind", "getsockname", "getpeername"):
            call.place = arguments.place(text)
        return True

    def _describe_waiting(self, call: Call, words: list[str], table: Descriptors) -> bool:
        found = []
        if call.name.startswith("epoll"):
            held = table[arguments.descriptor(words[0])[0] or -1] if words else None
            if held is not None and held.watched is not None:
                found = [each.number for each in held.watched.values()]
        else:
            for word in words[:4]:
                for number, label in arguments.descriptors_inside(word):
                    socket = self._socket(number, label, table)
                    if socket is not None and socket.family != "netlink":
                        found.append(socket.number)
        call.sockets = tuple(dict.fromkeys(found))
        return bool(found)

    def _describe_data(self, call: Call, words: list[str]) -> None:
        name = call.name
        if len(words) < 2 or name not in SENDING | RECEIVING:
            return
        if name.endswith("mmsg"):
            call.messages = arguments.messages(words[1])
            call.data = b"".join(each.data for each in call.messages)
            call.flags = _flags(words, 3)
        elif name in ("sendmsg", "recvmsg"):
            call.data = arguments.vector(words[1])
            call.asked = arguments.vector_length(words[1])
            call.place = arguments.place(words[1].partition("msg_iov")[0])
            call.flags = _flags(words, 2)
            if "MSG_TRUNC" in words[1].rpartition("msg_flags=")[2]:
                call.flags |= {"truncated"}
        elif name in ("writev", "readv"):
            call.data = arguments.vector(words[1])
            call.asked = arguments.vector_length(words[1])
        elif name in ("sendfile", "splice"):
            at = 3 if name == "sendfile" else 4
            call.asked = int(words[at]) if len(words) > at and words[at].isdigit() else None
        else:
            call.data = arguments.string(words[1])
            call.asked = int(words[2]) if len(words) > 2 and words[2].isdigit() else None
            call.flags = _flags(words, 3)
            if len(words) > 4:
                call.place = arguments.place(words[4])

    def _socket(self, number: int | None, label: str, table: Descriptors) -> Socket | None:
        """The socket behind a descriptor: by our table, else by strace's label."""
        if number is None:
            return None
        held, described = table[number], arguments.label(label) if label else None
        if held is not None and held.socket is not None:
            if described is not None:
                self._sockets.learn(held.socket, described)
            return held.socket
        if described is None or described.family == "other":
            return None
        socket = self._sockets.described(described)
        table.put(number, Held(socket))
        self._trace.sockets[socket.number] = socket
        return socket

    def _finish(self, call: Call, line: Ended, table: Descriptors) -> None:
        """The call has ended: its result, and what it changed."""
        call.until, call.result, call.error = line.until, line.result, line.error
        result = call.result if call.result is not None else -1
        if call.name in SENDING | RECEIVING and not call.failed and result >= 0:
            if call.name.endswith("mmsg"):
                call.messages = call.messages[:result]
                call.size = sum(each.size for each in call.messages)
            else:
                call.size = result
                if call.name in RECEIVING:
                    call.data = call.data[:result]  # a send keeps what it was asked to send
        if call.name in ("socket", *ACCEPTING) and result >= 0:
            self._made(call, line, result, table)
        elif call.name == "socketpair" and result == 0:
            self._made_pair(call, line, table)
        elif call.name in REAPING and result > 0:
            call.made = result
        socket = self._trace.sockets.get(call.socket) if call.socket else None
        if socket is not None:
            self._changed(call, socket, result)
        self._keep_tables(line, table, call.socket)

    def _made(self, call: Call, line: Ended, number: int, table: Descriptors) -> None:
        words = arguments.split(line.text)
        described = arguments.label(line.label)
        if call.name == "socket":
            kind = words[1].split("|") if len(words) > 1 else [""]
            socket = self._sockets.new(
                _FAMILIES.get(words[0], "other"),
                _KINDS.get(kind[0], "raw"),
                described.inode if described else 0,
            )
            options = words[1] if len(words) > 1 else ""
        else:
            listener = self._trace.sockets.get(call.socket or 0)
            socket = self._sockets.new(
                listener.family if listener else "other", listener.kind if listener else "stream"
            )
            socket.welcomed_by = call.socket
            call.place = arguments.place(line.text.partition(",")[2])
            socket.peer = call.place if call.place and call.place.host else None
            options = words[3] if len(words) > 3 else ""
        if described is not None:
            self._sockets.learn(socket, described)
        if call.name in ACCEPTING and call.place is None:
            call.place = socket.peer
        socket.blocks = "SOCK_NONBLOCK" not in options
        call.made = socket.number
        if call.name == "socket":
            call.socket, call.descriptor = socket.number, number
        self._trace.sockets[socket.number] = socket
        table.put(number, Held(socket, close_on_exec="SOCK_CLOEXEC" in options))

    def _made_pair(self, call: Call, line: Ended, table: Descriptors) -> None:
        words = arguments.split(line.text)
        for number, text in arguments.descriptors_inside(words[-1]):
            described = arguments.label(text)
            if described is not None:
                socket = self._sockets.described(described)
                self._trace.sockets[socket.number] = socket
                table.put(number, Held(socket, close_on_exec="SOCK_CLOEXEC" in line.text))
                call.socket, call.descriptor = socket.number, number

    def _changed(self, call: Call, socket: Socket, result: int) -> None:
        if call.name == "bind" and result == 0 and call.place is not None:
            socket.local = call.place
        elif call.name == "listen" and result == 0:
            socket.is_listener = True
        elif call.name == "connect" and (result == 0 or call.error == "EINPROGRESS"):
            socket.peer = call.place
        elif call.name == "getsockname" and result == 0 and call.place is not None and call.place.host:
            socket.local = call.place
        elif call.name == "fcntl" and result == 0 and call.arguments[1:2] == ("F_SETFL",):
            socket.blocks = "O_NONBLOCK" not in call.arguments[2]
        elif call.name == "ioctl" and result == 0 and call.arguments[1:2] == ("FIONBIO",):
            socket.blocks = "[1]" not in call.arguments[2]

    def _keep_tables(self, line: Ended, table: Descriptors, socket: int | None) -> None:
        """What a call that succeeded did to the table of descriptors. `socket`: which it was called on."""
        if line.result is None or line.error:
            return
        if line.name in ("epoll_create", "epoll_create1"):
            table.put(line.result, Held(close_on_exec="CLOEXEC" in line.text, watched={}))
            return
        words = arguments.split(line.text)
        number = arguments.descriptor(words[0])[0] if words else None
        if number is None:
            return
        match line.name:
            case "close":
                # Before a close returns, another thread may have been given the same number.
                held = table[number]
                if socket is None or held is None or held.socket is None or held.socket.number == socket:
                    table.drop(number)
            case "close_range" if len(words) > 2 and "CLOEXEC" not in words[2]:
                last = arguments.descriptor(words[1])[0]
                table.drop_range(number, last if last is not None and last >= 0 else 1 << 32)
            case "dup":
                table.copy_to(number, line.result, close_on_exec=False)
            case "dup2" | "dup3" if number != line.result:
                table.copy_to(number, line.result, close_on_exec="O_CLOEXEC" in line.text)
            case "fcntl" if len(words) > 1:
                self._fcntl(words, number, line.result, table)
            case "ioctl" if words[1:2] == ["FIOCLEX"] and (held := table[number]) is not None:
                held.close_on_exec = True
            case "epoll_ctl":
                self._watch(words, number, table)

    def _fcntl(self, words: list[str], number: int, result: int, table: Descriptors) -> None:
        held = table[number]
        if words[1].startswith("F_DUPFD"):
            table.copy_to(number, result, close_on_exec="CLOEXEC" in words[1])
        elif words[1] == "F_SETFD" and held is not None:
            held.close_on_exec = "FD_CLOEXEC" in words[2]

    def _watch(self, words: list[str], number: int, table: Descriptors) -> None:
        held, watched = table[number], arguments.descriptor(words[2])[0]
        if held is None or held.watched is None or watched is None:
            return
        target = table[watched]
        if words[1] == "EPOLL_CTL_DEL":
            held.watched.pop(watched, None)
        elif target is not None and target.socket is not None:
            held.watched[watched] = target.socket

    def _mind_the_terminal(self, line: Began | Ended) -> None:
        """Notice a prompt, or that its line was ended, by the program or by whoever types."""
        if line.name not in ("read", "write") or line.text[:2] not in ("0<", "1<", "2<"):
            return
        if line.name == "read" and not (isinstance(line, Ended) and line.result):
            return
        words = arguments.split(line.text)
        _, label = arguments.descriptor(words[0])
        if len(words) > 1 and arguments.unhex(label).startswith(b"/dev/pts/"):
            self.unfinished_line = not arguments.string(words[1]).endswith(b"\n")

    def _change(
        self, at: int, process: Process, kind: What, text: str, status: int | None = None, thread: int = 0
    ) -> Change:
        return Change(next(self._numbers), at, process.number, kind, text, status, thread)


def _flags(words: list[str], at: int) -> frozenset[str]:
    if len(words) <= at or not words[at].startswith("MSG_"):
        return frozenset()
    return frozenset(words[at].split("|"))
