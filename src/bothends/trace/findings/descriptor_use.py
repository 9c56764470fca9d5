"""Rules about descriptors that several threads or processes use, and about descriptors that run out. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.processes import finished_connections
from bothends.trace.findings.standstill import STANDSTILL_NS, Moment, call_name
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

SHOWN: Final = 12  # bytes of a message in a text
MAX_HEADER: Final = 16  # bytes before a message that announce its length
LOOP_TURNS: Final = 50  # failed accept() calls that make a busy loop
RANGE: Final = 3  # closed numbers that a program closes again: it closes a whole range

_BLOCKING: Final = MOVING | ACCEPTING | {"connect"}

Reader = tuple[int, int]  # process and thread


def two_readers(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find two threads or processes that read from one connection at the same time."""
    for socket in trace_index.sockets("stream"):
        if socket.family == "unix" and socket.accepted_from is None:
            continue  # a socketpair may serve as a queue of jobs
        reads: dict[Reader, list[Call]] = defaultdict(list)
        for call in trace_index.calls_by_socket[socket.number]:
            if call.name in RECEIVING and "MSG_PEEK" not in call.flags:
                reads[call.process, call.thread].append(call)
        waiting = [calls[-1] for calls in reads.values() if calls[-1].until is None]
        mixed_up = _reader_mixed_up(trace_index, socket, *waiting[:2]) if len(waiting) > 1 else None
        if mixed_up is not None:
            yield mixed_up
            continue
        pair = _concurrent_readers(trace_index, reads)
        if pair is None:
            yield from _starved_reader(trace_index, socket, reads)
            continue
        first, second = (next(each for each in reads[reader] if each.size) for reader in pair)
        mixed_up = _reader_mixed_up(trace_index, socket, first, second)
        if mixed_up is not None:
            yield mixed_up
            continue
        what = "processes" if first.process != second.process else "threads"
        yield Finding(
            "two-readers",
            f"Two {what} read from one connection",
            f"Two {what} wait for the data of one connection at once, and each receives a part: "
            f"{_name(trace_index, first)} received {formatting.quoted(first.data, first.size, SHOWN)}, "
            f"{_name(trace_index, second)} received {formatting.quoted(second.data, second.size, SHOWN)}.",
            f"Let one of the {what} read the connection; after fork(), close the descriptor in the other.",
            (first.number, second.number),
            process=second.process,
            sockets=(socket.number,),
            in_c="if (fork() == 0) { close(listener); serve(c); _exit(0); } close(c);",
            in_python="if os.fork() == 0: serve(c); os._exit(0)\nc.close()   # in the parent",
        )


def _starved_reader(
    trace_index: TraceIndex, socket: Socket, reads: dict[Reader, list[Call]]
) -> Iterator[Finding]:
    """Return the finding for a reader that still waits, when another one got what came meanwhile."""
    for reader, calls in reads.items():
        waiting = calls[-1]
        asked = [call for call in trace_index.sends(socket) if (call.process, call.thread) == reader]
        since = trace_index.position(asked[-1]) if asked else None
        taken = [
            call
            for other, others in reads.items()
            for call in others
            if other != reader
            and call.size
            and call.until is not None
            and (call.until > waiting.at if since is None else trace_index.position(call) > since)
        ]
        if waiting.until is not None or not taken or trace_index.end - taken[-1].at < STANDSTILL_NS:
            continue
        mixed_up = _reader_mixed_up(trace_index, socket, taken[-1], waiting)
        if mixed_up is not None:
            yield mixed_up
            return
        what = "processes" if taken[-1].process != waiting.process else "threads"
        yield Finding(
            "two-readers",
            f"Two {what} read from one connection",
            f"{capitalized(_name(trace_index, taken[-1]))} received "
            f"{formatting.quoted(taken[-1].data, taken[-1].size, SHOWN)}, and {_name(trace_index, waiting)} "
            f"waits for data of the same connection in {call_name(waiting)}, for "
            f"{formatting.duration(trace_index.end - waiting.at)}: each byte goes to one of the two.",
            f"Let one of the {what} read the connection, and hand the others what is theirs (a queue).",
            (waiting.number, taken[-1].number),
            process=taken[-1].process,
            sockets=(socket.number,),
            in_c="/* one thread: */ n = recv(fd, buf, sizeof buf, 0); put(queue_of(buf), buf, n);",
            in_python="queues[kind(line)].put(line)   # in the only thread that reads",
        )
        return


def _reader_mixed_up(trace_index: TraceIndex, socket: Socket, first: Call, second: Call) -> Finding | None:
    """Return the finding for two threads of a server, one of which should read another connection.

    That one was accepted from the same listener, and no thread waits for its data, while the peer waits.
    """
    if socket.accepted_from is None or first.process != second.process:
        return None
    moment = Moment(trace_index, trace_index.end)
    for other in trace_index.sockets("stream"):
        peer = trace_index.peer_of(other.number)
        if other.accepted_from != socket.accepted_from or other.number == socket.number or peer is None:
            continue
        if first.process not in trace_index.holders_at(other.number):
            continue
        unread = moment.sent(peer) - moment.received(other.number)
        states = moment.threads.values()
        is_awaited = any(other.number in state.sockets for state in states)
        peer_waits = any(state.waits_for(peer) for state in states)
        uses = [call for call in trace_index.calls_by_socket[other.number] if call.name in MOVING]
        users = {call.thread for call in uses}
        if is_awaited or not (unread > 0 or peer_waits) or not users <= {first.thread, second.thread}:
            continue
        server = name_of(trace_index, first.process)
        held = min(trace_index.holders_at(other.number)[first.process])
        count = "1 byte lies" if unread == 1 else f"{unread:,} bytes lie"
        harm = f"where {count} unread" if unread > 0 else "whose peer waits for data"
        before = f" One of them used descriptor {held} before." if users else ""
        return Finding(
            "two-readers",
            "Two threads read from one connection, and none from another",
            f"Two threads of {server} read from descriptor {first.descriptor}, and none waits for descriptor "
            f"{held}, a connection that it also accepted, {harm}.{before} Probably the threads "
            "share one variable for the connection, and the next accept() overwrote it.",
            "Give each thread a connection of its own, as an argument: by value, not the address of a "
            "variable that accept() writes to, and not a global one.",
            tuple(sorted({*(call.number for call in uses[-1:]), first.number, second.number})),
            "inferred",
            "one connection has two readers, and another one has none",
            process=first.process,
            sockets=(socket.number, other.number),
            in_c="pthread_create(&t, NULL, serve, (void *)(intptr_t)c);  /* not &c */",
            in_python="threading.Thread(target=serve, args=(connection,)).start()",
        )
    return None


def _concurrent_readers(
    trace_index: TraceIndex, reads: dict[Reader, list[Call]]
) -> tuple[Reader, Reader] | None:
    """Return two readers that received data and whose reads overlapped in time, or None."""
    readers = [reader for reader, calls in reads.items() if any(each.size for each in calls)]
    if len(readers) < 2:
        return None
    calls = sorted((call for reader in readers for call in reads[reader]), key=lambda each: each.at)
    last: dict[Reader, Call] = {}
    for call in calls:
        own = call.process, call.thread
        for reader, other in last.items():
            if reader != own and (other.until is None or other.until > call.at):
                # A read that returned at once, while the other one was returning too, is a handover.
                until = min(other.until or trace_index.end, call.until or trace_index.end)
                if until - call.at > 1_000_000:
                    return reader, own
        last[own] = call
    return None


def two_writers(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a message that one thread or process interrupts with its own on the same connection."""
    for socket in trace_index.sockets("stream"):
        sends = trace_index.sends(socket)
        if len({(call.process, call.thread) for call in sends}) < 2:
            continue
        found = _interrupted_send(sends) or _interrupted_line(sends) or _interrupted_frame(sends)
        if found is None:
            continue
        before, between, after, is_short = found
        what = "processes" if before.process != between.process else "threads"
        yield Finding(
            "two-writers",
            f"Two {what} write to one connection, and their messages mix",
            f"{capitalized(_name(trace_index, between))} sent "
            f"{formatting.quoted(between.data, between.size, SHOWN)} after "
            f"{_name(trace_index, before)} had sent a part of its message, "
            f"{formatting.quoted(before.data, before.size, SHOWN)}, and before the rest.",
            "Protect the connection with a lock that is held for a whole message, or let one thread write.",
            (before.number, between.number, *((after.number,) if after else ())),
            certainty="seen" if is_short else "inferred",
            basis="" if is_short else "each writer ends its messages, with a newline or at a length",
            process=between.process,
            sockets=(socket.number,),
            in_c="pthread_mutex_lock(&m); send_all(s, message, n); pthread_mutex_unlock(&m);",
            in_python="with lock: s.sendall(message)",
        )


def _interrupted_send(sends: list[Call]) -> tuple[Call, Call, Call | None, bool] | None:
    """Return a short send, the send of another thread that followed it, and the continuation."""
    for at, call in enumerate(sends[:-1]):
        following = sends[at + 1]
        is_other = (following.process, following.thread) != (call.process, call.thread)
        if call.requested is None or call.size >= call.requested or not is_other:
            continue
        rest = call.requested - call.size
        for later in sends[at + 2 :]:
            if (later.process, later.thread) == (call.process, call.thread):
                if later.requested == rest:
                    return call, following, later, True
                break
    return None


def _interrupted_frame(sends: list[Call]) -> tuple[Call, Call, Call | None, bool] | None:
    """Return a header that announces a length, a send of another writer, and the message of that length."""
    for at, call in enumerate(sends[:-2]):
        writer, following = (call.process, call.thread), sends[at + 1]
        if not 2 <= call.size <= MAX_HEADER or (following.process, following.thread) == writer:
            continue
        later = next((each for each in sends[at + 2 :] if (each.process, each.thread) == writer), None)
        if (
            later is None
            or later.requested is None
            or not _announces(call.data[: call.size], later.requested)
        ):
            continue
        return call, following, later, False
    return None


def _announces(header: bytes, length: int) -> bool:
    """Return whether a header holds a length, as a number of two or four bytes in either byte order."""
    return length > 0 and any(
        length < 256**size and length.to_bytes(size, order) in header
        for size in (2, 4)
        for order in ("big", "little")
    )


def _interrupted_line(sends: list[Call]) -> tuple[Call, Call, Call | None, bool] | None:
    """Return a part of a line, a send of another writer, and the rest of the line."""
    by_writer: dict[Reader, list[Call]] = defaultdict(list)
    for call in sends:
        by_writer[call.process, call.thread].append(call)
    for calls in by_writer.values():
        if any(len(each.data) < each.size or not _is_text(each.data) for each in calls):
            return None
        if not calls[-1].data[: calls[-1].size].endswith(b"\n"):
            return None
    for at, call in enumerate(sends[:-1]):
        following = sends[at + 1]
        writer = call.process, call.thread
        if call.data[: call.size].endswith(b"\n") or (following.process, following.thread) == writer:
            continue
        later = next((each for each in sends[at + 2 :] if (each.process, each.thread) == writer), None)
        if later is not None:
            return call, following, later, False
    return None


def _is_text(data: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\r\n\t" for byte in data)


def closed_in_use(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a descriptor that one thread closed while another thread was in a call on it."""
    yield from _replaced_in_use(trace_index)
    for close in trace_index.calls_named("close"):
        if close.failed or close.socket is None or close.until is None:
            continue
        for call in _in_progress(trace_index, close):
            reused = _use_of_reused_number(trace_index, call, close)
            stays = call.until is None and trace_index.end - close.until >= 5 * BLOCKED_NS
            if reused is None and not (stays and _is_running(trace_index, call)):
                continue
            what = (
                f"Thread {close.thread} closed descriptor {close.descriptor} while thread {call.thread} "
                f"was in {call.name}() on it. "
            )
            if reused is not None:
                created, use = reused
                what += (
                    f"Then {created.name}() returned the same number for another connection, and thread "
                    f"{call.thread} went on with {use.name}() on that one."
                )
            else:
                what += (
                    "close() does not end that call: it waits still, and meanwhile the kernel keeps "
                    "the connection open and sends no FIN to the peer."
                )
            yield Finding(
                "closed-in-use",
                "A thread closes a descriptor that another thread uses",
                what,
                "Call shutdown() from the other thread, which ends the blocked call, and close the "
                "descriptor in the thread that uses it.",
                (call.number, close.number, *(each.number for each in reused or ())),
                process=close.process,
                sockets=(close.socket, *((reused[1].socket or 0,) if reused else ())),
                in_c="shutdown(fd, SHUT_RDWR);   /* the reader receives 0 bytes, and closes */",
                in_python="s.shutdown(socket.SHUT_RDWR)   # the reader receives b'', and closes",
            )
            return


def _replaced_in_use(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a descriptor that one thread replaced with dup2() while another was in a receive on it.

    Java closes so: the receive ends with an exception. It harms if the peer goes on, and gets no answer.
    """
    for dup in trace_index.calls_named("dup2", "dup3"):
        if dup.failed or dup.until is None:
            continue
        for call in _receives(trace_index).get((dup.process, dup.result), ()):
            lasts = call.at < dup.at and (call.until is None or call.until >= dup.at)
            if not lasts or call.socket in (None, dup.socket) or call.thread == dup.thread:
                continue
            harm = _request_after(trace_index, call.socket or 0, dup.until)
            if harm is None:
                continue
            request, outcome = harm
            yield Finding(
                "closed-in-use",
                "A thread closes a connection that another thread uses",
                f"Thread {dup.thread} closed descriptor {dup.result} while thread {call.thread} waited in "
                f"{call.name}() on it. The peer went on with "
                f"{formatting.quoted(request.data, request.size, 24)} "
                f"{formatting.duration(request.at - dup.until)} later, and got {outcome.error or 'EOF'} "
                "instead of an answer.",
                "Close the connection in the thread that serves it, when the conversation has ended. Another "
                "thread must wait until then, or leave the connection alone.",
                (call.number, dup.number, request.number, outcome.number),
                process=dup.process,
                sockets=(call.socket or 0,),
                in_c="shutdown(fd, SHUT_RDWR);   /* the reader receives 0 bytes, and closes */",
                in_python="with connection: serve(connection)   # in the thread that serves it",
            )
            return


@lru_cache(maxsize=1)
def _receives(trace_index: TraceIndex) -> dict[tuple[int, int | None], list[Call]]:
    """Return the receives on sockets, by process and descriptor."""
    found: dict[tuple[int, int | None], list[Call]] = defaultdict(list)
    for call in trace_index.calls_named(*RECEIVING):
        if call.socket is not None:
            found[call.process, call.descriptor].append(call)
    return found


def _request_after(trace_index: TraceIndex, socket: int, at: int) -> tuple[Call, Call] | None:
    """Return what the peer of a socket sent after a time, and the receive that brought EOF or an error."""
    request = None
    for call in trace_index.calls_by_socket[trace_index.peer_of(socket) or 0]:
        if call.at >= at and call.name in SENDING and call.size:
            request = request or call
        elif request is not None and call.name in RECEIVING and call.until is not None:
            return (request, call) if call.result == 0 or call.error in ("ECONNRESET", "EPIPE") else None
    return None


def closed_twice(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a descriptor that is closed a second time, whether or not something else has its number."""
    return (each for each in _bad_uses(trace_index) if each.rule == "closed-twice")


def used_after_close(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a descriptor that a program uses after it has closed it: EBADF."""
    return (each for each in _bad_uses(trace_index) if each.rule == "used-after-close")


@lru_cache(maxsize=1)
def _bad_uses(trace_index: TraceIndex) -> tuple[Finding, ...]:
    return tuple(_find_bad_uses(trace_index))


def _find_bad_uses(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find one call of each process that failed with EBADF on a descriptor that was closed."""
    by_process: dict[int, list[Call]] = defaultdict(list)
    for call in trace_index.calls:
        if call.error == "EBADF" and call.socket is not None:
            by_process[call.process].append(call)
    for failed in by_process.values():
        if len({call.descriptor for call in failed if call.name == "close"}) >= RANGE:
            failed = [call for call in failed if call.name != "close"]  # it closes all numbers, to be sure
        # A use that failed weighs more than a second close(), and comes first.
        for call in sorted(failed, key=lambda each: each.name == "close"):
            if call.name not in MOVING | {"connect", "close"}:
                continue  # such as epoll_ctl(EPOLL_CTL_DEL), which selectors try
            close = _close_before(trace_index, call)
            if close is not None and not _is_dangerous(trace_index, call, close):
                continue
            if close is not None:
                yield _bad_use(trace_index, call, close, sum(each.name == call.name for each in failed))
                break


def _is_dangerous(trace_index: TraceIndex, call: Call, close: Call) -> bool:
    """Return whether the bad call loses data, or can meet a connection that is opened later.

    At its end a program may close once more, or close a socket to stop a thread, and nothing happens.
    """
    if call.name in MOVING and call.thread == close.thread:
        return True
    own = trace_index.calls_by_process[call.process]
    return any(each.created_id and each.at > call.at for each in reversed(own)) or (
        _own_use(trace_index, close) is not None
    )


def _close_before(trace_index: TraceIndex, call: Call) -> Call | None:
    """Return the close() of the descriptor that a call found closed."""
    found = None
    for each in trace_index.calls_by_socket[call.socket or 0]:
        if each.at > call.at:
            break
        is_close = each.name == "close" and not each.failed and each.process == call.process
        if is_close and each.descriptor == call.descriptor:
            found = each
    return found


def _bad_use(trace_index: TraceIndex, call: Call, close: Call, count: int) -> Finding:
    number, ago = call.descriptor, formatting.duration(max(0, call.at - (close.until or close.at)))
    name, closer = _name(trace_index, call), _name(trace_index, close)
    by = "it" if close.thread == call.thread else closer
    own = _own_use(trace_index, close)
    what = f"{name} called {call.name}() on descriptor {number} {ago} after {by} had closed it, and got EBADF"
    what += f" ({count:,} times in all)" if count > 1 else ""
    first = own
    if own is not None:
        what += (
            f". When {closer} closed it, {number} was the number of another connection already: that thread "
            f"had served an earlier one with this number, which was closed before"
        )
    again = call.name == "close"
    return Finding(
        "closed-twice" if again or own is not None else "used-after-close",
        "A descriptor is closed twice" if again or own is not None else "A closed descriptor is used",
        f"{capitalized(what)}. As soon as another connection gets the number, such a call meets that one.",
        "Close each descriptor in one place, and set the variable to -1 (None) when you do; no other thread "
        "may use it then.",
        tuple(sorted({close.number, call.number, *((first.number,) if first is not None else ())})),
        process=close.process if own is not None else call.process,
        sockets=(call.socket or 0,),
        in_c="close(fd); fd = -1;",
        in_python="s.close()   # once: not os.close(s.fileno()) as well",
    )


def _own_use(trace_index: TraceIndex, close: Call) -> Call | None:
    """Return the close() of an earlier connection with the number, if only that one was the closing thread's.

    A thread that closes a connection on which it made no other call, while other threads use it, and that
    has served another one with the same number, closes that one for the second time.
    """
    users = {each.thread for each in trace_index.calls_by_socket[close.socket or 0] if each.name in MOVING}
    if close.thread in users or not users:
        return None
    earlier: Call | None = None
    served = set[int | None]()
    for each in trace_index.calls_by_process[close.process]:
        if each.at >= close.at:
            break
        if each.descriptor != close.descriptor or each.socket == close.socket:
            continue
        if each.name in MOVING and each.thread == close.thread:
            served.add(each.socket)
        if each.name == "close" and not each.failed and each.socket in served:
            earlier = each
    return earlier


def _in_progress(trace_index: TraceIndex, close: Call) -> Iterator[Call]:
    """Return the calls of other threads on the socket that a close() overlapped, unless it was shut down."""
    end = close.until or close.at
    for call in trace_index.calls_by_socket[close.socket or 0]:
        if call.at > close.at:
            return
        if call.name == "shutdown" and not call.failed:
            return
        if (
            call.process != close.process
            or call.thread == close.thread
            or call.descriptor != close.descriptor
        ):
            continue
        if call.name in _BLOCKING and (call.until is None or call.until > end):
            yield call
    for call in _lasting_polls(trace_index).get(close.socket or 0, ()):
        if call.process == close.process and call.thread != close.thread and call.at <= close.at:
            yield call


@lru_cache(maxsize=1)
def _lasting_polls(trace_index: TraceIndex) -> dict[int, list[Call]]:
    """Return the poll() and select() calls that wait for one socket only and never returned, by socket."""
    found: dict[int, list[Call]] = defaultdict(list)
    for call in trace_index.calls_named(*WAITING):
        alone = len(call.sockets) == 1 and not call.descriptors_waited and call.timeout_ns is None
        if call.until is None and alone and not call.name.startswith("epoll"):
            found[call.sockets[0]].append(call)
    return found


def _use_of_reused_number(trace_index: TraceIndex, call: Call, close: Call) -> tuple[Call, Call] | None:
    """Return the call that got the number of a closed descriptor, and its use by the thread of `call`."""
    created: Call | None = None
    for later in trace_index.calls_by_process[call.process]:
        if later.at < close.at:
            continue
        opens = later.name in ("socket", *ACCEPTING) and later.result == close.descriptor
        if opens and later.created_id and later.thread != call.thread:
            created = later
        is_use = later.name in MOVING and later.descriptor == close.descriptor
        if created is not None and is_use and later.thread == call.thread:
            return (created, later) if later.socket == created.created_id else None
    return None


def _is_running(trace_index: TraceIndex, call: Call) -> bool:
    return trace_index.ended_at(call.process) is None


def descriptors_exhausted(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find calls that failed because the process, or the system, has no more descriptors."""
    for number, calls in trace_index.calls_by_process.items():
        failed = [call for call in calls if call.error in ("EMFILE", "ENFILE")]
        if not failed:
            continue
        first = failed[0]
        opened = [
            call
            for call in calls
            if call.name in ("socket", *ACCEPTING) and call.created_id and call.at < first.at
        ]
        finished = {socket.number for _, socket, _, _ in finished_connections(trace_index, number, first.at)}
        held = [call for call in opened if number in trace_index.holders_at(call.created_id or 0, first.at)]
        leaked = [call for call in held if call.created_id in finished]
        within = formatting.duration((failed[-1].until or failed[-1].at) - first.at)
        count = f"{len(failed):,} times within {within}" if len(failed) > 1 else "once"
        text = (
            f"{first.name}() of {_name(trace_index, first)} failed {count} with {first.error}: "
            f"the process held {len(held)} sockets"
        )
        if len(failed) >= LOOP_TURNS and first.name in ACCEPTING:
            text = text.replace(
                ": the process",
                ", because the connection stays in the accept queue and is "
                "reported again at once. The process",
            )
        if leaked:
            text += f", and the peers of {len(leaked)} of them had finished."
            remedy = "Close each connection when its peer has finished."
        else:
            text += ", and none whose peer had finished."
            remedy = (
                "Raise the limit (ulimit -n, RLIMIT_NOFILE), or accept fewer connections at a time; and wait "
                "before accept() is called again."
            )
        yield Finding(
            "descriptors-exhausted",
            "The process has run out of descriptors",
            text,
            remedy,
            (*(call.number for call in leaked[:2]), first.number, *(call.number for call in failed[1:3])),
            process=number,
            sockets=tuple({call.socket for call in failed if call.socket is not None}),
            in_c="if (n == 0) { close(c); }   /* EOF */",
            in_python="with connection: serve(connection)",
        )


def _name(trace_index: TraceIndex, call: Call) -> str:
    """Return a name of the process of a call, with the thread if it is not the first one."""
    name = name_of(trace_index, call.process)
    return (
        name
        if call.thread in (0, trace_index.process(call.process).pid)
        else f"thread {call.thread} of {name}"
    )
