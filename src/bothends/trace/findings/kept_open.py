"""Rules about connections that stay open while a peer waits for their end. Pure.

close() sends FIN only when the last descriptor of a socket is closed: copies in other processes (fork, exec)
and in the same one (dup, makefile) keep it open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, MOVING, RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.hanging_reads import UNANSWERED_NS, waits_for_end
from bothends.trace.findings.hangs import doing, not_selected
from bothends.trace.findings.http_messages import missing_of_response
from bothends.trace.findings.reading import beyond_nfds
from bothends.trace.findings.standstill import (
    STANDSTILL_NS,
    Standstill,
    ThreadState,
    age,
    bytes_text,
    call_name,
    evidence,
    standstills,
)
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call, Socket
from bothends.trace.rendering import formatting

_OWN_THREADS: Final = ("node", "nodejs", "java")  # they have idle threads in any program
_REMEDY_IN_THREAD: Final = (
    "Catch the errors of each connection in its thread, and close the connection in any case (finally)."
)
_REMEDY_OF_CLOSE: Final = (
    "Close the connection when the conversation is over. In Python close() has no effect while a makefile() "
    "object is open: close that too. Or let the client stop at a length or a newline."
)


def copy_keeps_open(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that was closed in one place, while a copy of the descriptor keeps it open."""
    for each in standstills(trace_index):
        if each.peer is None or not each.waiter.waits_for(each.socket.number) or each.unread_here:
            continue
        if each.waiter.activity == "events" and _is_event_loop_of_server(trace_index, each, each.peer):
            continue
        held = trace_index.holders_at(each.peer.number, each.moment.now)
        users = {call.process for call in each.sends(each.peer) + each.receives(each.peer)}
        close = _last_close(trace_index, each, each.peer)
        copies = held.keys() - users or (held.keys() if close is not None else set())
        if not copies or (users & held.keys() and close is None) or not (users or close):
            continue
        if any(state.waits_for(each.peer.number) for state in each.peers):
            continue
        if close is not None and each.moment.now - close.at < STANDSTILL_NS:
            continue  # the other copies may be closed in a moment
        if close is None and any(trace_index.ended_at(user) is None for user in users):
            continue
        yield _copy(trace_index, each, min(copies), held, close, users)


def _is_event_loop_of_server(trace_index: TraceIndex, each: Standstill, peer: Socket) -> bool:
    """Return whether a thread waits for clients too, or for a channel between processes of one program."""
    sockets = trace_index.trace.sockets
    serves = any(sockets[number].is_listener for number in each.waiter.sockets)
    return serves or (each.socket.accepted_from is None and peer.accepted_from is None)


def _last_close(trace_index: TraceIndex, each: Standstill, peer: Socket) -> Call | None:
    closes = [
        call
        for call in trace_index.calls_by_socket[peer.number]
        if call.name == "close" and not call.failed and call.at < each.moment.now
    ]
    return closes[-1] if closes else None


def _copy(
    trace_index: TraceIndex,
    each: Standstill,
    holder: int,
    held: dict[int, set[int]],
    close: Call | None,
    users: set[int],
) -> Finding:
    assert each.peer is not None
    user = close.process if close is not None else min(users)
    process = trace_index.process(holder)
    name, client = name_of(trace_index, user), name_of(trace_index, each.waiter.process)
    numbers = ", ".join(map(str, sorted(held[holder])))
    ended = (
        f"{capitalized(name)} closed descriptor {close.descriptor}"
        if close is not None
        else f"{capitalized(name)} has exited"
    )
    if holder == user:
        text = f"{ended}, but still has descriptor {numbers} of the same connection (dup)"
    else:
        kin = (
            "its child"
            if process.parent == user
            else "its parent"
            if holder == trace_index.process(user).parent
            else "it"
        )
        text = f"{ended}, but process {process.pid} ({kin}) holds a copy as descriptor {numbers}"
    return Finding(
        "copy-keeps-open",
        "A copy of the descriptor keeps the connection open",
        f"{text}, so no FIN was sent: {client} waits in {call_name(each.waiter)} for the end, for "
        f"{age(each, each.waiter)}.",
        "After fork() close the connection in the process that does not use it. Open descriptors with "
        "close-on-exec, so that started programs do not inherit them. shutdown(SHUT_WR) sends FIN in any "
        "case.",
        evidence(close, each.waiter),
        process=holder if process.parent != user else user,
        sockets=(each.socket.number, each.peer.number),
        in_c="if (fork() == 0) { close(listener); serve(c); exit(0); } close(c);",
        in_python="connection.close()  # in the parent, after os.fork(); subprocess: close_fds=True",
    )


def http_no_length(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find an HTTP response whose end the client cannot tell, on a connection that stays open."""
    for each in standstills(trace_index):
        if each.peer is None or each.unread_here or not each.waiter.waits_for(each.socket.number):
            continue
        spoken = turns(trace_index, each.socket)
        if len(spoken) < 2 or spoken[-1].kind != "received":
            continue
        missing = missing_of_response(spoken[-1].data, spoken[-1].total, spoken[-2].data)
        holders = trace_index.holders_at(each.peer.number, each.moment.now)
        if not missing or not holders:
            continue
        server, client = name_of(trace_index, min(holders)), name_of(trace_index, each.waiter.process)
        sends = each.sends(each.peer)
        yield Finding(
            "http-no-length",
            "An HTTP response whose end the client cannot know",
            f"{capitalized(server)} sent a response of {bytes_text(spoken[-1].total)} that lacks {missing}, "
            f"and keeps the connection open: {client} waits in {call_name(each.waiter)} for more, "
            f"{formatting.duration(each.moment.now - each.since)} after the last byte.",
            "Send Content-Length (the exact number of bytes of the body) or Transfer-Encoding: chunked, or "
            "send Connection: close and close the connection after the body.",
            evidence(*sends[-1:], each.waiter),
            process=min(holders),
            sockets=(each.socket.number, each.peer.number),
            in_c='dprintf(fd, "HTTP/1.1 200 OK\\r\\nContent-Length: %zu\\r\\n\\r\\n", size);',
            in_python='head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n".encode()',
        )


def not_read(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that was accepted, and whose data no thread reads or waits for."""
    for each in standstills(trace_index):
        if each.peer is None or not each.unread:
            continue
        for_output = next((state for state in each.peers if state.awaits_room(each.peer.number)), None)
        if for_output is not None and not each.unread_here:
            yield _watched_for_output(trace_index, each, each.peer, for_output)
            continue
        selecting = next((state for state in each.peers if beyond_nfds(trace_index, each.peer, state)), None)
        state = selecting or _idle_holder(each) or _listens_only(trace_index, each, each.peer)
        reads = each.receives(each.peer)
        # An event loop also waits for what its other threads have done, through a pipe or an eventfd.
        # And it stops to wait for a stream without a reader, after one read that fills its own buffer.
        is_paused = not reads or reads[-1].size == reads[-1].requested
        is_inferred = state is None and is_paused and each.moment.now - each.since >= UNANSWERED_NS
        if is_inferred:
            state = _listens_only(trace_index, each, each.peer, besides_files=True)
        if state is None:
            continue
        client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
        if selecting is not None:
            yield not_selected(
                trace_index, each, each.peer, selecting, "not-read",
                f"There lie the {bytes_text(each.unread)} that {client} sent, unread for "
                f"{age(each, each.waiter)}.",
            )  # fmt: skip
            continue
        workers = [] if reads else _idle_workers(trace_index, each, state)
        if workers:
            yield _not_handed_over(trace_index, each, each.peer, state, workers)
            continue
        loop = _selector_without(trace_index, state, each.peer)
        if loop is not None:
            yield _selector_not_woken(trace_index, each, each.peer, state, loop)
            continue
        if _accepts_again(trace_index, each.peer, state):
            yield _second_accept(trace_index, each, each.peer, state)
            continue
        has_read = f"read {bytes_text(sum(call.size for call in reads))} and left" if reads else "never read"
        verb = "is blocked in" if each.waiter.activity == "send" else "waits in"
        yield Finding(
            "not-read",
            "Nothing reads the data of an open connection",
            f"{capitalized(server)} {has_read} {bytes_text(each.unread)} that {client} sent, "
            f"and {doing(each, state)}. It does not wait for this connection in any call, and {client} "
            f"{verb} {call_name(each.waiter)} for {age(each, each.waiter)}.",
            "Read from every connection that was accepted, or close it. To serve several at once, give each "
            "a thread, or wait for all of them in poll().",
            evidence(*each.sends(each.socket)[-1:], state, each.waiter),
            "inferred" if is_inferred else "seen",
            "its event loop has not waited for this connection since it was "
            + ("read" if reads else "accepted")
            if is_inferred
            else "",
            process=state.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="int c = accept(listener, NULL, NULL); pthread_create(&t, NULL, serve, (void *)(long)c);",
            in_python="threading.Thread(target=serve, args=(connection,)).start()   "
            "# in Node.js: socket.on('data', serve)",
        )


def _idle_workers(trace_index: TraceIndex, each: Standstill, state: ThreadState) -> list[Call]:
    """Return what the other threads of a server that accepts are blocked in, if each waits in futex().

    None of them has used a socket. Java and Node.js have such threads in any program: for them, none.
    """
    if state.activity not in ("accept", "events") or _is_used(trace_index, each):
        return []
    if runs(trace_index, state.process, *_OWN_THREADS):
        return []
    others = [
        call
        for call in trace_index.trace.blocked
        if call.process == state.process and call.thread != state.thread
    ]
    used = {call.thread for call in trace_index.calls_by_process[state.process]}
    idle = [call for call in others if call.name.startswith("futex") and call.thread not in used]
    return idle if len(idle) == len(others) else []


def _is_used(trace_index: TraceIndex, each: Standstill) -> bool:
    """Return whether a thread of the server has called anything that moves data on the connection."""
    assert each.peer is not None
    return any(call.name in MOVING for call in trace_index.calls_by_socket[each.peer.number])


def _not_handed_over(
    trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState, workers: list[Call]
) -> Finding:
    client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
    threads = "thread waits" if len(workers) == 1 else "threads wait"
    return Finding(
        "not-read",
        "A connection was accepted, and none of the threads that are idle was woken for it",
        f"{capitalized(server)} accepted a connection and waits in {call_name(state)} again. Its "
        f"{len(workers)} other {threads} in futex(), and none has read the {bytes_text(each.unread)} that "
        f"{client} sent: {client} waits in {call_name(each.waiter)} for {age(each, each.waiter)}. Probably "
        "the connection lies in a queue, and the condition that these threads wait for was not signalled.",
        "After a connection is put into the queue, signal the condition variable that the threads wait on, "
        "with its mutex held; each waits in a loop that looks at the queue first (pthread_cond_wait(3)).",
        evidence(*each.sends(each.socket)[-1:], state, each.waiter),
        "inferred",
        "every other thread waits for another one, and none has used a socket",
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c="pthread_mutex_lock(&m); put(fd); pthread_cond_signal(&not_empty); pthread_mutex_unlock(&m);",
        in_python="with not_empty: jobs.append(connection); not_empty.notify()   # or queue.Queue",
    )


def _selector_without(trace_index: TraceIndex, state: ThreadState, peer: Socket) -> Call | None:
    """Return the call in which a selector of Java waits that was not told of a connection; or None.

    A connection is made non-blocking before it is registered, and registered by the thread that selects.
    """
    if peer.blocks or not runs(trace_index, state.process, "java"):
        return None
    if any(call.name == "epoll_ctl" for call in trace_index.calls_by_socket[peer.number]):
        return None
    return next(
        (
            call
            for call in trace_index.trace.blocked
            if call.process == state.process
            and call.thread != state.thread
            and call.name.startswith("epoll")
            and peer.number not in call.sockets
        ),
        None,
    )


def _selector_not_woken(
    trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState, loop: Call
) -> Finding:
    client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
    waited = formatting.duration(max(0, each.moment.now - loop.at))
    return Finding(
        "not-read",
        "A connection was made ready for a selector, which was not woken to watch it",
        f"{capitalized(server)} accepted the connection of {client} and made it non-blocking, but the "
        f"selector does not watch it: its thread waits in {call_name(loop)} for {waited}. Nothing reads the "
        f"{bytes_text(each.unread)} that {client} sent, and {client} waits in {call_name(each.waiter)}. "
        "In Java a channel that another thread registers is watched from the next select() on.",
        "Call selector.wakeup() after register(), or let the thread of the selector accept and register.",
        evidence(*each.sends(each.socket)[-1:], state, each.waiter),
        "inferred",
        "the connection is non-blocking, and no epoll_ctl() added it",
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c="epoll_ctl(ep, EPOLL_CTL_ADD, c, &event);",
        in_python="selector.register(connection, selectors.EVENT_READ)",
    )


def _accepts_again(trace_index: TraceIndex, peer: Socket, state: ThreadState) -> bool:
    """Return whether the thread that accepted a server's only connection accepts again, and none used it."""
    if state.activity != "accept" or state.call is None or state.call.socket != peer.accepted_from:
        return False
    accepts = [
        call
        for call in trace_index.calls_by_socket[state.call.socket or 0]
        if call.name in ACCEPTING and call.created_id is not None
    ]
    used = any(
        call.name in SENDING | RECEIVING or peer.number in call.sockets
        for call in trace_index.calls_by_socket[peer.number]
    )
    return len(accepts) == 1 and accepts[0].thread == state.thread and not used and peer.blocks


def _second_accept(trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState) -> Finding:
    client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
    return Finding(
        "not-read",
        "The server waits for a second connection, and nothing reads the first",
        f"{capitalized(server)} accepted the connection of {client} and waits in {call_name(state)} for "
        f"another one, for {age(each, state)}. Nothing reads the {bytes_text(each.unread)} that {client} "
        f"sent on the first, and {client} waits in {call_name(each.waiter)}. Each accept() returns another "
        "connection: to call it once for the input and once for the output takes two clients.",
        "Call accept() once for each client, and use the socket that it returns for both directions. Serve "
        "it before the next accept(), or in a thread of its own.",
        evidence(*each.sends(each.socket)[-1:], state, each.waiter),
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c="int c = accept(listener, NULL, NULL); read(c, in, sizeof in); write(c, out, n);",
        in_python="c, _ = listener.accept(); data = c.recv(4096); c.sendall(answer)"
        "   # in Java: one Socket c = server.accept()",
    )


def _watched_for_output(
    trace_index: TraceIndex, each: Standstill, peer: Socket, state: ThreadState
) -> Finding:
    client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
    changes = [call for call in trace_index.calls_by_socket[peer.number] if call.name == "epoll_ctl"]
    return Finding(
        "not-read",
        "A socket is watched for output alone, and its data lies unread",
        f"{capitalized(server)} waits in {call_name(state)} until the connection is writable, and not for "
        f"its data: the {bytes_text(each.unread)} that {client} sent are unread, and {client} waits in "
        f"{call_name(each.waiter)} for {age(each, each.waiter)}.",
        "When the output is sent, watch the socket for input again (EPOLLIN, POLLIN). Watch it for output "
        "only as long as there is some.",
        evidence(*changes[-1:], *each.sends(each.socket)[-1:], state, each.waiter),
        process=state.process,
        sockets=(each.socket.number, peer.number),
        in_c="ev.events = EPOLLIN | (left ? EPOLLOUT : 0); epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev);",
        in_python="selector.modify(s, EVENT_READ | (EVENT_WRITE if rest else 0))",
    )


def _listens_only(
    trace_index: TraceIndex, each: Standstill, peer: Socket, *, besides_files: bool = False
) -> ThreadState | None:
    """Return the state of an event loop that waits for new connections only: nothing makes it read again.

    `besides_files`: it may wait for descriptors that are no sockets, too.
    """
    states = [state for state in each.peers if peer.number not in state.sockets]
    sockets = trace_index.trace.sockets
    loops = [
        state
        for state in states
        if state.activity == "events"
        and not state.has_limit
        and (besides_files or not state.call_waits_for_files)
        and all(sockets[number].is_listener for number in state.sockets)
    ]
    idle = all(state in loops or state.activity in ("lock", "accept") for state in states)
    return loops[0] if loops and idle and len(states) == len(each.peers) else None


def not_closed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that no thread uses any more or closes, while the peer waits for its end."""
    yield from waits_for_end(trace_index)
    for each in standstills(trace_index):
        if each.peer is None or each.unread or each.unread_here or each.waiter.activity != "read":
            continue
        state, spoken = _idle_holder(each), turns(trace_index, each.socket)
        if state is None or not spoken or not _stays_open(trace_index, each, each.peer):
            continue
        sends = each.sends(each.peer)
        exited = _has_lost_its_thread(trace_index, each, each.peer)
        if spoken[-1].kind != "received" and sends and not exited and state.activity != "lock":
            continue
        if state.activity == "sleep" and _is_periodic(trace_index, sends, state):
            continue
        client, server = name_of(trace_index, each.waiter.process), name_of(trace_index, state.process)
        sent = f"sent {bytes_text(sum(call.size for call in sends))}" if sends else "sent no answer"
        if spoken[-1].kind == "sent":
            request = formatting.quoted(spoken[-1].data, spoken[-1].total, 24)
            sent = f"read {request}, sent no answer to it"
        subject = (
            f"The thread of {server} that served this connection {sent} and has exited, and {server}"
            if exited
            else (f"{capitalized(server)} {sent}, and")
        )
        held = trace_index.holders_at(each.peer.number, each.moment.now)[state.process]
        yield Finding(
            "not-closed",
            "A thread has exited and left its connection open"
            if exited
            else "A connection is neither used nor closed, and the peer waits for its end",
            f"{subject} {doing(each, state)} with the connection open (descriptor "
            f"{min(held)}), which no thread reads. {capitalized(client)} waits in {call_name(each.waiter)} "
            f"for more, or for EOF, for {age(each, each.waiter)}.",
            _REMEDY_IN_THREAD if exited else _REMEDY_OF_CLOSE,
            evidence(*sends[-1:], state, each.waiter),
            "seen" if exited else "inferred",
            "" if exited else "no thread of the server waits for this connection",
            process=state.process,
            sockets=(each.socket.number, each.peer.number),
            in_c="shutdown(c, SHUT_WR); close(c);",
            in_python="with connection, connection.makefile('rb') as stream: ...  # closes both",
        )


def _has_lost_its_thread(trace_index: TraceIndex, each: Standstill, peer: Socket) -> bool:
    """Return whether all threads that had used a connection have exited."""
    users = {call.thread for call in each.sends(peer) + each.receives(peer)}
    exits = trace_index.trace.thread_exits
    return bool(users) and all(exits.get(user, each.moment.now + 1) <= each.moment.now for user in users)


def _idle_holder(each: Standstill) -> ThreadState | None:
    """Return what the program at the other end does, if none of its threads uses the connection."""
    states = each.peers
    if each.peer is None or not states or each.socket.accepted_from is not None:
        return None
    number = each.peer.number
    if any(number in state.sockets for state in states):
        return None
    if any(state.activity in ("run", "send", "connect", "child") for state in states):
        return None
    if any(state.activity == "events" for state in states):
        return None  # an event loop may watch for something else on purpose
    if any(_awaits_child(each.moment.trace_index, state) for state in states):
        return None
    old = [state for state in states if each.moment.now - state.since >= STANDSTILL_NS]
    return min(old, key=lambda state: state.since) if len(old) == len(states) else None


def _awaits_child(trace_index: TraceIndex, state: ThreadState) -> bool:
    """Return whether a thread reads from a descriptor that is no socket, while a child of its process runs.

    Probably it waits for the output of a command, which the answer is made of.
    """
    return state.activity == "other" and any(
        process.parent == state.process and trace_index.ended_at(process.number) is None
        for process in trace_index.trace.processes.values()
    )


def _stays_open(trace_index: TraceIndex, each: Standstill, peer: Socket) -> bool:
    """Return whether the program never closed the connection: the trace ended, or the program exited."""
    closed = any(
        call.name == "close" and not call.failed for call in trace_index.calls_by_socket[peer.number]
    )
    return each.moment.now >= trace_index.end or not closed


def _is_periodic(trace_index: TraceIndex, sends: list[Call], state: ThreadState) -> bool:
    """Return whether a thread slept between two sends before: it may send again."""
    own = [call for call in trace_index.calls_by_process[state.process] if call.thread == state.thread]
    times = [call.at for call in sends]
    return len(times) > 1 and any(
        call.name in ("nanosleep", "clock_nanosleep") and min(times) < call.at < max(times) for call in own
    )
