"""Decode strace lines into calls on sockets, with their socket, data and addresses. Pure.

    lines ──> CallDecoder.decode() ──> points (a call starts, a call ends, a process event)

1. The first lines of a child process may precede the return of its parent's fork(), which is the only line
   that identifies the child. Lines of an unknown process wait for that line.
2. A long call has two lines, when it starts and when it ends. Both points refer to the same `Call`.
3. Calls on descriptors that are not sockets are left out. The exceptions are calls that wait for sockets,
   sleeps of a process that uses sockets, calls that fail because a descriptor is no socket (any more),
   and output to a terminal: the diagram must start on a line of its own. While a call that is left out
   blocks, `blocked_calls` returns it.
4. A signal that the program ignores, or handles with SA_RESTART, interrupts a blocked call, and the kernel
   restarts it (signal(7)): strace prints it as two calls. It is drawn as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from bothends.trace.capture import arguments
from bothends.trace.capture.call_data import fill_data, fill_time_limit, flags_of
from bothends.trace.capture.descriptors import (
    DescriptorTable,
    EpollInterest,
    OnChange,
    OpenFile,
    SocketRegistry,
    interest_of,
    open_interests,
)
from bothends.trace.capture.pipes import CREATING, PipeTracker
from bothends.trace.capture.running_processes import OpenFiles
from bothends.trace.capture.strace import (
    CallEnded,
    CallsLost,
    CallStarted,
    DataMoved,
    Line,
    SignalDelivered,
    ThreadExited,
)
from bothends.trace.capture.wrong_descriptors import WrongDescriptors
from bothends.trace.model import (
    MAX_THREAD_EXITS,
    Call,
    DescriptorChange,
    Point,
    ProcessEvent,
    ProcessEventKind,
    Socket,
    Trace,
    TracedProcess,
    trim_oldest,
)

SENDING: Final = frozenset({"write", "writev", "send", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice"})
RECEIVING: Final = frozenset({"read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"})
ACCEPTING: Final = frozenset({"accept", "accept4"})
DUPLICATING: Final = frozenset({"dup", "dup2", "dup3"})
SELECTS: Final = frozenset({"select", "_newselect", "pselect6"})
WAITING: Final = SELECTS | {"poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
SLEEPING: Final = frozenset({"nanosleep", "clock_nanosleep"})
FORKING: Final = frozenset({"fork", "vfork", "clone", "clone3"})
REAPING: Final = frozenset({"wait4", "waitid", "waitpid"})
# Calls whose first argument is a descriptor (of splice(): the third). They are drawn if it is a socket's.
ON_SOCKETS: Final = (
    SENDING
    | RECEIVING
    | ACCEPTING
    | DUPLICATING
    | {"bind", "listen", "connect", "shutdown", "close", "fcntl", "ioctl", "epoll_ctl"}
    | {"getsockopt", "setsockopt", "getsockname", "getpeername"}
)
MOVING: Final = SENDING | RECEIVING
_NEEDING_SOCKETS: Final = MOVING | ACCEPTING | {"bind", "listen", "connect"}
# The names of all calls that can be drawn.
DRAWN_CALLS: Final = ON_SOCKETS | WAITING | SLEEPING | FORKING | REAPING | {"socket", "socketpair"}
# Calls that query or set something and transfer no data: the diagram leaves them out, without --all-calls.
QUIET_CALLS: Final = (
    frozenset({"getsockopt", "setsockopt", "getsockname", "getpeername", "fcntl", "ioctl", "epoll_ctl"})
    | DUPLICATING
    | WAITING
    | SLEEPING
)

# Signals that are not drawn, because they don't affect the conversation. (The JVM uses SIGSEGV internally. A
# process that it kills is drawn anyway, when it ends.)
IGNORED_SIGNALS: Final = frozenset(
    {"SIGCHLD", "SIGQUIT", "SIGWINCH", "SIGCONT", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGPROF"}
)
STOP_SIGNALS: Final = frozenset({"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"})
# Calls that show that a program uses a socket, even one that it has inherited.
_USING: Final = SENDING | RECEIVING | ACCEPTING
# Where the C library looks for the name service cache, whatever the program itself does: nscd(8).
_NAME_SERVICE: Final = frozenset({"/var/run/nscd/socket", "/run/nscd/socket"})
MAX_USUAL: Final = 1_000  # different ends of usual lines that are remembered
MAX_ORPHAN_LINES: Final = 10_000  # lines of a process whose parent's fork() has not returned yet


@dataclass(slots=True)
class _Restart:
    """A call that was interrupted. `at` is when the kernel restarted it, None if that is not known."""

    call: Call
    ended: CallEnded
    at: int | None = None


class CallDecoder:
    """Decodes the lines of one strace process. Several decoders can share a trace.

    Args:
        trace: where processes and sockets are added.
        sockets: the known sockets, shared as well.
        numbers: the source of event numbers.
        role: the role of the first process that uses a socket; the next ones are `role/2` and so on.
        command: the command line of the first process.
    """

    def __init__(
        self, trace: Trace, sockets: SocketRegistry, numbers: Iterator[int], role: str, command: str = ""
    ) -> None:
        self._trace = trace
        self._sockets = sockets
        self._numbers = numbers
        self._role = role
        self._command = command
        self._role_numbers = itertools.count(1)
        self._processes: dict[int, TracedProcess] = {}  # by thread
        self._tables: dict[int, DescriptorTable] = {}  # by thread
        self._calls: dict[int, Call] = {}  # started and not ended, by thread
        # By thread: 0 after a select() for sockets, then the number of the first one without any.
        self._selecting: dict[int, int] = {}
        self._undrawn: dict[int, CallStarted] = {}  # the same, calls that are not on the timeline
        self._restarts: dict[int, _Restart] = {}  # interrupted calls, by thread
        self._now = 0  # when the current line's changes to descriptors happened
        self._orphans: dict[int, list[Line]] = {}
        # What follows the data of usual sends and receives: the arguments, the bytes requested, the flags.
        self._usual: dict[str, tuple[tuple[str, ...], int, frozenset[str], bool]] = {}
        self._wrong = WrongDescriptors(_NEEDING_SOCKETS)
        self._stopped: set[int] = set()  # processes that a signal stopped, by number
        self.threads: dict[int, int] = {}  # the number of threads, by process number
        self._opened = 0  # sockets that the program itself opened, or failed to open
        self._uses_inherited = False
        self.unfinished_line = False  # whether the last output to a terminal lacks its newline
        self._pipes = PipeTracker(trace, sockets, self._holders)
        self.names: dict[int, str] = {}  # roles of processes that ran before the trace, by pid

    @property
    def uses_sockets(self) -> bool:
        """Whether a call was made on a socket that the diagram shows."""
        return self._opened > 0 or self._uses_inherited

    def _count_opened(self, table: DescriptorTable, change: int) -> None:
        self._opened += change
        table.opened += change

    def decode(self, lines: Iterable[Line]) -> Iterator[Point]:
        """Return the points that these lines show, in order."""
        for line in lines:
            if type(line) is DataMoved:
                call = self._moved(line)
                if call is not None:
                    yield Point(call)
                    yield Point(call, True)
                    continue
                line = line.as_call()
            if line.pid not in self._processes:
                if self._processes:
                    waiting = self._orphans.setdefault(line.pid, [])
                    if len(waiting) < MAX_ORPHAN_LINES:
                        waiting.append(line)
                    continue
                yield from self._add_process(line.pid, line.at, None)
            yield from self._decode_line(line)

    def _moved(self, line: DataMoved) -> Call | None:
        """Return the call of a line of the most frequent kind; None if something about it is unusual."""
        pid, number = line.pid, line.descriptor
        table = self._tables.get(pid)
        if table is None or number <= 2 or pid in self._restarts or pid in self._calls:
            return None
        process, open_file = self._processes[pid], table[number]
        if open_file is None or open_file.label != line.label or not process.role or pid in self._undrawn:
            return None
        socket = open_file.socket
        if socket is None or not (self._uses_inherited or self._opened):
            return None
        usual = self._usual.get(line.rest)
        if usual is None:
            if len(self._usual) > MAX_USUAL:
                self._usual.clear()
            is_cut = line.rest.startswith("...")
            split = line.rest[5 if is_cut else 2 :].split(", ")
            usual = self._usual[line.rest] = (tuple(split), int(split[0]), flags_of(split, 1), is_cut)
        words, requested, flags, is_cut = usual
        result, data = line.result, line.data
        shown = arguments.data_text(data, is_cut=is_cut)
        if result < len(data) and line.name in RECEIVING:
            data = data[:result]
        elif result > len(data) and not is_cut:
            return None  # a pointer
        return Call(
            next(self._numbers), process.number, pid, line.name, line.at, line.until,
            (str(number), shown, *words), result, "", number, socket.number, (), requested, result, data, (),
            None, None, flags,
        )  # fmt: skip

    def add_attached(self, pid: int, threads: Iterable[int], at: int) -> Iterator[Point]:
        """Add a process that was running before the trace, and its threads."""
        yield from self._add_process(pid, at, None)
        table = self._tables[pid]
        for thread in threads:
            if thread != pid:
                self._processes[thread] = self._processes[pid]
                self._tables[thread] = table
                self.threads[self._processes[pid].number] += 1

    def add_open_files(self, pid: int, files: OpenFiles) -> None:
        """Add what the descriptors of a process that was running before the trace refer to."""
        for socket in files.add_to(self._tables[pid], self._sockets):
            self._trace.sockets[socket.number] = socket

    def finish(self) -> Iterator[Point]:
        """Decode the waiting lines of processes with an unknown parent: strace has ended."""
        for pid in list(self._orphans):
            for line in self._orphans.pop(pid, []):  # none if one before it has forked
                if pid not in self._processes:  # the first line, or another process with the same pid
                    yield from self._add_process(pid, line.at, None)
                yield from self._decode_line(line)

    @property
    def live_pids(self) -> set[int]:
        """The pids of the processes that are running, as far as known."""
        return {pid for pid, each in self._processes.items() if each.pid == pid and each.status is None}

    @property
    def referenced_sockets(self) -> set[int]:
        """The numbers of the sockets that a descriptor or an unfinished call refers to."""
        tables = {id(each): each for each in self._tables.values()}
        found = {each.number for table in tables.values() for each in table.sockets().values()}
        return found | {each.socket for each in self._calls.values() if each.socket}

    @property
    def live_processes(self) -> set[int]:
        """The numbers of the processes that are running, as far as known."""
        return {each.number for each in self._processes.values()}

    def _holders(self) -> Iterator[tuple[TracedProcess, DescriptorTable]]:
        return ((self._processes[thread], table) for thread, table in self._tables.items())

    def table(self, pid: int) -> DescriptorTable:
        """Return the descriptor table of a process."""
        return self._tables[pid]

    def blocked_calls(self) -> Iterator[Call]:
        """Return the calls that have started, have not ended, and are not on the timeline."""
        for started in list(self._undrawn.values()):
            process = self._processes.get(started.pid)
            if process is None:
                continue
            words = arguments.split_arguments(started.text)
            call = Call(next(self._numbers), process.number, started.pid, started.name, started.at)
            call.arguments = tuple(map(arguments.display_text, words))
            if started.name in WAITING:
                self._fill_waited(call, words, "", self._tables[started.pid])
            else:
                call.descriptor = arguments.descriptor(words[0])[0] if words else None
                fill_time_limit(call, words)
            yield call

    def running_threads(self) -> Iterator[tuple[int, int, int]]:
        """Return the running threads: number and pid of the process, and id of the thread."""
        for thread, process in self._processes.items():
            yield process.number, process.pid, thread

    def _add_process(
        self,
        pid: int,
        at: int,
        parent: TracedProcess | None,
        parent_table: DescriptorTable | None = None,
        *,
        shares_table: bool = False,
    ) -> Iterator[Point]:
        command = parent.command if parent else self._command
        number = next(reversed(self._trace.processes), 0) + 1
        process = TracedProcess(number, pid, "", command, parent.number if parent else None, at)
        self._trace.processes[process.number] = process
        self._processes[pid] = process
        if parent_table is None:
            self._tables[pid] = DescriptorTable(self._recorder(process))
        elif shares_table:
            self._tables[pid] = parent_table
        else:
            self._now = at
            self._tables[pid] = parent_table.copy_for_child(self._recorder(process))
        self.threads[process.number] = 1
        yield Point(self._process_event(at, process, "began", f"process {pid}", thread=pid))

    def _recorder(self, process: TracedProcess) -> OnChange:
        def record(socket: Socket, descriptor: int, is_open: bool) -> None:
            self._trace.add_descriptor_change(
                DescriptorChange(self._now, socket.number, process.number, descriptor, is_open)
            )

        return record

    def _continue_restarted(self, line: Line, restart: _Restart) -> Line | None:
        """Return the line of a call that the kernel restarts as a line of the same call: rule 4.

        None: the line is the signal that interrupted it. The same line: the call was not restarted.
        """
        if isinstance(line, SignalDelivered) and line.signal in IGNORED_SIGNALS:
            return None
        if isinstance(line, CallStarted | CallEnded) and restart.at in (None, line.at):
            name = restart.ended.name
            if line.name == "restart_syscall":
                return replace(line, at=restart.call.at, name=name, text=restart.ended.text)
            if line.name == name:
                return replace(line, at=restart.call.at)
        return line

    def _decode_line(self, line: Line) -> Iterator[Point]:
        restart = self._restarts.get(line.pid)
        if restart is not None:
            continued = self._continue_restarted(line, restart)
            if continued is None:
                return
            if continued is line:
                yield from self._end_interrupted(line.pid, restart)
            elif isinstance(line, CallStarted):
                restart.at = line.at
            else:
                del self._restarts[line.pid]
            line = continued
        yield from self._decode_call_or_event(line)

    def _end_interrupted(self, thread: int, restart: _Restart) -> Iterator[Point]:
        """End a call that was interrupted and not restarted."""
        del self._restarts[thread]
        self._calls.pop(thread, None)
        self._finish(restart.call, restart.ended, self._tables[thread])
        yield Point(restart.call, is_end=True)

    def _decode_call_or_event(self, line: Line) -> Iterator[Point]:
        process = self._processes[line.pid]
        self._now = line.at
        match line:
            case CallStarted():
                self._track_terminal_line(line)
                call = self._call(line, process)
                if call is not None:
                    yield Point(call)
                elif line.pid not in self._calls:
                    self._undrawn[line.pid] = line
            case CallEnded():
                yield from self._on_call_ended(line, process)
            case SignalDelivered():
                yield from self._on_signal(line, process)
            case CallsLost():
                what = "call is" if line.count == 1 else "calls are"
                text = f"{line.count:,} {what} missing here"
                yield Point(self._process_event(line.at, process, "note", text, thread=line.pid))
            case ThreadExited():
                yield from self._on_thread_exited(line, process)

    def _on_signal(self, line: SignalDelivered, process: TracedProcess) -> Iterator[Point]:
        text = "" if line.signal in IGNORED_SIGNALS else line.signal
        if (
            line.signal in STOP_SIGNALS and not line.details
        ):  # each thread reports that the process has stopped
            text = "" if process.number in self._stopped else f"stopped by {line.signal}"
            self._stopped.add(process.number)
        elif line.signal == "SIGCONT" and process.number in self._stopped:
            self._stopped.discard(process.number)
            text = line.signal
        if text:
            yield Point(self._process_event(line.at, process, "signal", text, thread=line.pid))

    def _assign_role(self, process: TracedProcess) -> None:
        """Give a process that uses a socket its role. The first one gets the name of the program.

        A shell or another wrapper that only starts the program gets no role, and no lane.
        """
        if not process.role and process.pid in self.names:
            process.role = self.names[process.pid]
        elif not process.role:
            number = next(self._role_numbers)
            process.role = self._role if number == 1 else f"{self._role}/{number}"

    def _on_thread_exited(self, line: ThreadExited, process: TracedProcess) -> Iterator[Point]:
        if self._calls.pop(line.pid, None) is not None or process.role:
            self._trace.thread_exits[line.pid] = line.at
            trim_oldest(self._trace.thread_exits, MAX_THREAD_EXITS)
        self._undrawn.pop(line.pid, None)
        del self._processes[line.pid]
        table = self._tables.pop(line.pid, None)
        self.threads[process.number] -= 1
        if line.signal:
            import signal

            process.status = -int(getattr(signal, line.signal, 0))
        elif line.pid == process.pid and line.status is not None:
            process.status = line.status
        if self.threads[process.number] <= 0:
            del self.threads[process.number]
            process.ended = line.at
            if table is not None and not any(each is table for each in self._tables.values()):
                table.drop_all()
            how = f"killed by {line.signal}" if line.signal else f"exit status {process.status}"
            yield Point(self._process_event(line.at, process, "ended", how, process.status, line.pid))

    def _call(self, line: CallStarted | CallEnded, process: TracedProcess) -> Call | None:
        """Return the call of a line: a new one, or the started one that it ends. None if it is not drawn."""
        call = self._calls.get(line.pid)
        if call is None or call.at != line.at:
            call = Call(0, process.number, line.pid, line.name, line.at)
            table = self._tables[line.pid]
            result_text = line.result_text if isinstance(line, CallEnded) else ""
            if not self._fill_arguments(call, line.text, table, result_text):
                if not isinstance(line, CallEnded) or not self._wrong.fill_in(call, line.error, table):
                    return None
                if call.name in MOVING:
                    fill_data(call, arguments.split_arguments(line.text))
            if call.name in SLEEPING and not process.role:
                return None
            call.number = next(self._numbers)
            if call.socket is not None or call.name in ("socket", "socketpair"):
                self._assign_role(process)
            if not self._uses_inherited and call.name in _USING and call.socket is not None:
                socket = self._trace.sockets.get(call.socket)
                self._uses_inherited = socket is not None and socket.is_shown
            if isinstance(line, CallStarted):
                self._calls[line.pid] = call
            return call
        if isinstance(line, CallStarted):
            return None  # its start is known already
        self._fill_arguments(call, line.text, self._tables[line.pid], line.result_text)
        return call

    def _on_call_ended(self, line: CallEnded, process: TracedProcess) -> Iterator[Point]:
        known = line.pid in self._calls and self._calls[line.pid].at == line.at
        call = self._call(line, process)
        self._calls.pop(line.pid, None)
        self._undrawn.pop(line.pid, None)
        table = self._tables[line.pid]
        if line.name in FORKING and line.result is not None and line.result > 0:
            yield from self._on_fork(line, process, call, known)
            return
        self._track_terminal_line(line)
        if line.name in ("execve", "execveat") and line.result == 0:
            table.close_on_exec()
            if self._tables[line.pid] is table:
                words = arguments.split_arguments(line.text)
                process.command = arguments.display_text(words[1]) if len(words) > 1 else ""
            yield Point(self._process_event(line.at, process, "exec", process.command, thread=line.pid))
            return
        if line.name == "rt_sigaction":
            self._note_ignored_children(line, process)
            return
        if line.name.startswith("io_uring") and not process.uses_io_uring:
            process.uses_io_uring = True
            warning = "uses io_uring, which strace can't see"
            self._trace.notes.append(f"process {process.pid} {warning}: calls made that way are missing")
            yield Point(self._process_event(line.at, process, "note", warning, thread=line.pid))
        if call is None:
            yield from self._on_pipe(line, process, table)
            self._update_descriptors(line, table, None)
            return
        if not known:
            yield Point(call)
        if line.error.startswith("ERESTART") and line.until is not None:
            self._restarts[line.pid] = _Restart(call, line)
            self._calls[line.pid] = call
            return
        self._finish(call, line, table)
        if call.until is not None:
            yield Point(call, is_end=True)

    def _on_fork(
        self, line: CallEnded, process: TracedProcess, call: Call | None, known: bool
    ) -> Iterator[Point]:
        child, table = line.result, self._tables[line.pid]
        assert child is not None
        if "CLONE_THREAD" in line.text:
            self._processes[child] = process
            self._tables[child] = table
            self.threads[process.number] += 1
        else:
            if call is not None:
                if not known:
                    yield Point(call)
                call.until, call.result, call.created_id = line.until, child, child
                if call.until is not None:
                    yield Point(call, is_end=True)
            shared = "CLONE_FILES" in line.text
            yield from self._add_process(child, line.at, process, table, shares_table=shared)
        for waiting in self._orphans.pop(child, []):
            if child in self._processes:
                yield from self._decode_line(waiting)

    def _on_pipe(self, line: CallEnded, process: TracedProcess, table: DescriptorTable) -> Iterator[Point]:
        if line.name in CREATING:
            self._pipes.add(line, table)
        elif (call := self._pipes.transfer(line, process, table)) is not None:
            call.number = next(self._numbers)
            self._assign_role(process)
            yield from (Point(call), Point(call, is_end=True))

    def _note_ignored_children(self, line: CallEnded, process: TracedProcess) -> None:
        words = arguments.split_arguments(line.text)
        if words[:1] == ["SIGCHLD"] and len(words) > 1 and words[1] != "NULL":
            process.ignores_children = "sa_handler=SIG_IGN" in words[1] or "SA_NOCLDWAIT" in words[1]

    def _fill_arguments(self, call: Call, text: str, table: DescriptorTable, result_text: str = "") -> bool:
        """Fill in what the arguments show. Returns whether the call is to be drawn."""
        words = arguments.split_arguments(text)
        call.arguments = tuple(map(arguments.display_text, words))
        name = call.name
        if name in ("socket", "socketpair"):
            return True
        if name in FORKING:
            return "CLONE_THREAD" not in text
        if name in REAPING:
            return True
        if name in SLEEPING:
            fill_time_limit(call, words)
            return True
        if name in WAITING:
            return self._fill_waited(call, words, result_text, table) or self._is_first_empty(call, words)
        if not words or name not in ON_SOCKETS:
            return False
        at = 2 if name == "splice" else 0
        number, label = arguments.descriptor(words[at] if at < len(words) else "")
        if name == "epoll_ctl":
            number, label = arguments.descriptor(words[2]) if len(words) > 2 else (None, "")
        call.descriptor = number
        if call.socket is not None:
            socket = self._trace.sockets.get(call.socket)  # the descriptor may have been reused since
        else:
            socket = self._socket(number, label, table)
        if socket is None:
            return False
        call.socket = socket.number
        if name in MOVING:
            fill_data(call, words)
        if name in ("connect", "bind", "getsockname", "getpeername"):
            call.address = arguments.socket_address(text)
            if call.address is not None and call.address.host in _NAME_SERVICE:
                self._count_opened(table, -(not socket.asks_name_service))
                socket.asks_name_service = True
        return True

    def _fill_waited(self, call: Call, words: list[str], result_text: str, table: DescriptorTable) -> bool:
        """Fill in what a call waits for, and what it reported ready. Returns whether sockets are among it."""
        fill_time_limit(call, words)
        if call.name.startswith("epoll"):
            open_file = table[arguments.descriptor(words[0])[0] or -1] if words else None
            if open_file is None or open_file.interest_list is None:
                return False
            wanted = open_interests(open_file.interest_list, table)
            ready = [
                (each, events)
                for events, data in arguments.epoll_events(words[1] if len(words) > 1 else "")
                if (each := interest_of(wanted, data)) is not None
            ]
            if not call.sockets and not call.descriptors_waited:
                found = [(each, wanted[each].socket, wanted[each].events) for each in wanted]
            else:
                found = None  # the interest list may have changed since the call started
            sockets_by_number = {number: each.socket for number, each in wanted.items()}
        else:
            by_poll = call.name in ("poll", "ppoll")
            members = arguments.poll_set(words[0]) if by_poll and words else []
            members = members or arguments.select_sets(words[1:4])
            found = [(each.number, self._waited(each, table), each.events) for each in members]
            results = arguments.poll_set(result_text) if by_poll else arguments.select_result(result_text)
            ready = [(each.number, each.events) for each in results]
            sockets_by_number = {number: socket for number, socket, _ in found}
        if found is not None:
            wanted_events = {socket.number: events for _, socket, events in found if socket is not None}
            call.sockets, call.wanted_events = tuple(wanted_events), tuple(wanted_events.values())
            call.descriptors_waited = tuple(number for number, socket, _ in found if socket is None)
        reported = {
            socket.number: events
            for number, events in ready
            if (socket := sockets_by_number.get(number)) is not None
        }
        call.ready, call.ready_events = tuple(reported), tuple(reported.values())
        if call.sockets and call.name in SELECTS:
            self._selecting[call.thread] = 0
        return bool(call.sockets)

    def _is_first_empty(self, call: Call, words: list[str]) -> bool:
        """Return whether it is a thread's first select() with empty sets after one with sockets.

        select() with 0 descriptors is a sleep; with as many as before and none in a set, the set was lost.
        """
        if call.name not in SELECTS or words[:1] in ([], ["0"]) or call.descriptors_waited:
            return False
        if self._selecting.get(call.thread) == 0:
            self._selecting[call.thread] = call.number
        return self._selecting.get(call.thread) == call.number

    def _waited(self, member: arguments.WaitedDescriptor, table: DescriptorTable) -> Socket | None:
        socket = self._socket(member.number, member.label, table)
        return None if socket is None or socket.family == "netlink" else socket

    def _socket(self, number: int | None, label: str, table: DescriptorTable) -> Socket | None:
        """Return the socket of a descriptor: from the table, or else from strace's label."""
        if number is None:
            return None
        open_file, described = table[number], arguments.parse_label(label) if label else None
        if open_file is not None and open_file.socket is not None:
            if described is not None:
                self._sockets.update_from_label(open_file.socket, described)
                open_file.label = label if open_file.socket.family != "other" else ""
            return open_file.socket
        if described is None or described.family == "other":
            return None
        socket = self._sockets.find_or_create(described)
        table.put(number, OpenFile(socket))
        self._trace.sockets[socket.number] = socket
        return socket

    def _finish(self, call: Call, line: CallEnded, table: DescriptorTable) -> None:
        """Fill in the result of a call that has ended, and apply its effects."""
        call.until, call.result, call.error = line.until, line.result, line.error
        result = call.result if call.result is not None else -1
        if call.name in MOVING and not call.failed and result >= 0:
            if call.name.endswith("mmsg"):
                call.messages = call.messages[:result]
                call.size = sum(each.size for each in call.messages)
            else:
                call.size = result
                if call.name in RECEIVING:
                    call.data = call.data[:result]  # a send keeps all the data it was given
        elif call.name in ("socket", "socketpair") and call.failed:
            self._count_opened(table, 1)
        if call.name in ("socket", *ACCEPTING) and result >= 0:
            self._on_socket_created(call, line, result, table)
        elif call.name == "socketpair" and result == 0:
            self._count_opened(table, 1)
            self._on_socketpair(call, line, table)
        elif call.name in REAPING and result > 0:
            call.created_id = result
        socket = self._trace.sockets.get(call.socket) if call.socket else None
        if socket is not None:
            self._count_opened(table, call.name == "socket" and socket.is_shown)
            self._update_socket(call, socket, result)
        self._update_descriptors(line, table, call.socket)

    def _on_socket_created(self, call: Call, line: CallEnded, number: int, table: DescriptorTable) -> None:
        words = arguments.split_arguments(line.text)
        described = arguments.parse_label(line.label)
        if call.name == "socket":
            kind = words[1].split("|") if len(words) > 1 else [""]
            socket = self._sockets.new(
                arguments.FAMILIES.get(words[0], "other"),
                arguments.KINDS.get(kind[0], "raw"),
                described.inode if described else 0,
            )
            options = words[1] if len(words) > 1 else ""
        else:
            listener = self._trace.sockets.get(call.socket or 0)
            socket = self._sockets.new(
                listener.family if listener else "other", listener.kind if listener else "stream"
            )
            socket.accepted_from = call.socket
            call.address = arguments.socket_address(line.text.partition(",")[2])
            socket.set_peer(call.address if call.address and call.address.host else None)
            options = words[3] if len(words) > 3 else ""
        if described is not None:
            self._sockets.update_from_label(socket, described)
        if call.name in ACCEPTING and call.address is None:
            call.address = socket.peer
        socket.blocks = "SOCK_NONBLOCK" not in options
        call.created_id = socket.number
        if call.name == "socket":
            call.socket, call.descriptor = socket.number, number
        self._trace.sockets[socket.number] = socket
        table.put(number, OpenFile(socket, close_on_exec="SOCK_CLOEXEC" in options))

    def _on_socketpair(self, call: Call, line: CallEnded, table: DescriptorTable) -> None:
        words = arguments.split_arguments(line.text)
        for number, text in arguments.descriptors_in_set(words[-1]):
            described = arguments.parse_label(text)
            if described is not None:
                socket = self._sockets.find_or_create(described)
                self._trace.sockets[socket.number] = socket
                table.put(number, OpenFile(socket, close_on_exec="SOCK_CLOEXEC" in line.text))
                call.socket, call.descriptor = socket.number, number

    def _update_socket(self, call: Call, socket: Socket, result: int) -> None:
        if call.name == "bind" and result == 0 and call.address is not None:
            socket.set_local(call.address)
        elif call.name == "listen" and result == 0:
            socket.is_listener = True
        elif call.name == "connect" and (result == 0 or call.error == "EINPROGRESS"):
            socket.set_peer(call.address)
        elif call.name == "getsockname" and result == 0 and call.address is not None and call.address.host:
            socket.set_local(call.address)
        elif call.name == "fcntl" and result == 0 and call.arguments[1:2] == ("F_SETFL",):
            socket.blocks = "O_NONBLOCK" not in call.arguments[2]
        elif call.name == "ioctl" and result == 0 and call.arguments[1:2] == ("FIONBIO",):
            socket.blocks = "[1]" not in call.arguments[2]

    def _update_descriptors(self, line: CallEnded, table: DescriptorTable, socket: int | None) -> None:
        """Apply a successful call to the descriptor table. `socket` is the number of the socket it used."""
        if line.result is None or line.error:
            return
        if line.name in ("epoll_create", "epoll_create1"):
            table.put(line.result, OpenFile(close_on_exec="CLOEXEC" in line.text, interest_list={}))
            return
        words = arguments.split_arguments(line.text)
        number = arguments.descriptor(words[0])[0] if words else None
        if number is None:
            return
        match line.name:
            case "close":
                # Before close() returns, another thread may have opened a descriptor with the same number.
                open_file = table[number]
                target = open_file.socket if open_file is not None else None
                self._now = line.at
                if socket is None or target is None or target.number == socket:
                    table.close(number)
            case "close_range" if len(words) > 2 and "CLOEXEC" not in words[2]:
                last = arguments.descriptor(words[1])[0]
                table.drop_range(number, last if last is not None and last >= 0 else 1 << 32)
            case "close_range" if len(words) > 2:
                last = arguments.descriptor(words[1])[0]
                table.close_on_exec_range(number, last if last is not None and last >= 0 else 1 << 32)
            case "dup":
                table.duplicate(number, line.result, close_on_exec=False)
            case "dup2" | "dup3" if number != line.result:
                table.duplicate(number, line.result, close_on_exec="O_CLOEXEC" in line.text)
            case "fcntl" if len(words) > 1:
                self._fcntl(words, number, line.result, table)
            case "ioctl" if len(words) > 1 and (open_file := table[number]) is not None:
                if words[1] in ("FIOCLEX", "FIONCLEX"):
                    open_file.close_on_exec = words[1] == "FIOCLEX"
            case "epoll_ctl":
                self._epoll_ctl(words, number, table)

    def _fcntl(self, words: list[str], number: int, result: int, table: DescriptorTable) -> None:
        open_file = table[number]
        if words[1].startswith("F_DUPFD"):
            table.duplicate(number, result, close_on_exec="CLOEXEC" in words[1])
        elif words[1] == "F_SETFD" and open_file is not None:
            open_file.close_on_exec = "FD_CLOEXEC" in words[2]

    def _epoll_ctl(self, words: list[str], number: int, table: DescriptorTable) -> None:
        epoll, watched = table[number], arguments.descriptor(words[2])[0]
        if epoll is None or epoll.interest_list is None or watched is None:
            return
        target, wanted = table[watched], arguments.epoll_events(words[3] if len(words) > 3 else "")
        if words[1] == "EPOLL_CTL_DEL":
            epoll.interest_list.pop(watched, None)
        else:
            events, data = wanted[0] if wanted else ("", watched)
            socket = target.socket if target is not None else None
            epoll.interest_list[watched] = EpollInterest(socket, events, data)

    def _track_terminal_line(self, line: CallStarted | CallEnded) -> None:
        """Track whether a terminal's line is unfinished: after a prompt, until output or input ends it."""
        if line.name not in ("read", "write") or line.text[:2] not in ("0<", "1<", "2<"):
            return
        if line.name == "read" and not (isinstance(line, CallEnded) and line.result):
            return
        words = arguments.split_arguments(line.text)
        _, label = arguments.descriptor(words[0])
        if len(words) > 1 and arguments.unhex(label).startswith(b"/dev/pts/"):
            self.unfinished_line = not arguments.string_bytes(words[1]).endswith(b"\n")

    def _process_event(
        self,
        at: int,
        process: TracedProcess,
        kind: ProcessEventKind,
        text: str,
        status: int | None = None,
        thread: int = 0,
    ) -> ProcessEvent:
        return ProcessEvent(next(self._numbers), at, process.number, kind, text, status, thread)
