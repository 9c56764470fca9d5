"""Rules about child processes and descriptors: zombies, and connections that are never closed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.calls import FORKING, REAPING, SENDING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.model import Socket


def children_never_waited_for(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find child processes that have exited and that their parent does not wait for: zombies."""
    for number, calls in trace_index.calls_by_process.items():
        process = trace_index.process(number)
        if not process.role or process.ignores_children:
            continue
        children = {call.created_id: call for call in calls if call.name in FORKING and call.created_id}
        reaped = {call.created_id for call in calls if call.name in REAPING and call.created_id}
        parent_end = trace_index.ended_at(number) or trace_index.end
        zombies = []
        for event in trace_index.process_events:
            pid = trace_index.process(event.process).pid
            if (
                event.kind == "ended"
                and pid in children
                and pid not in reaped
                and parent_end - event.at >= BLOCKED_NS
            ):
                zombies += [children[pid].number, event.number]
        if zombies:
            count = len(zombies) // 2
            children_stay = "1 child process exited and stays a zombie"
            if count > 1:
                children_stay = f"{count} child processes exited and stay zombies"
            yield Finding(
                "children-not-waited-for",
                "The parent does not wait for its child processes",
                f"{children_stay} until the parent exits.",
                "Call waitpid(-1, &status, WNOHANG) from time to time; or ignore SIGCHLD, and the kernel "
                "reaps child processes.",
                tuple(zombies),
            )


def descriptor_never_closed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a connection that the peer has closed, but whose descriptor this process keeps open."""
    for call in trace_index.calls:
        if not call.name.startswith("accept") or not call.created_id:
            continue
        socket = trace_index.trace.sockets.get(call.created_id)
        if socket is None:
            continue
        own = [each for each in trace_index.calls_by_socket[socket.number] if each.process == call.process]
        if any(each.name == "close" and not each.failed for each in own):
            continue
        peer_end = _peer_finished(trace_index, socket)
        process_end = trace_index.ended_at(call.process) or trace_index.end
        if peer_end is None or process_end - peer_end[1] < BLOCKED_NS:
            continue
        forked = any(
            each.name in FORKING and each.created_id for each in trace_index.calls_by_process[call.process]
        )
        yield Finding(
            "never-closed",
            "The descriptor of a connection is never closed",
            f"The peer of descriptor {call.result} has finished, but the process keeps the descriptor open"
            + (
                ". After fork() the parent must close its copy too, or the peer never receives EOF."
                if forked
                else "."
            ),
            "Close every connection when it is finished (in Python: with connection:). Otherwise the process "
            "runs out of descriptors (EMFILE).",
            (call.number, peer_end[0]),
        )
        return


def _peer_finished(trace_index: TraceIndex, socket: Socket) -> tuple[int, int] | None:
    """Return the event by which the peer has finished, and its time; None if it has not."""
    for packet in trace_index.packets_to[socket.number]:
        if "RST" in packet.flags and not packet.lost:
            return packet.number, packet.at
        if "FIN" in packet.flags and _is_fin_acked(trace_index, socket, (packet.offset or 0) + packet.size):
            return packet.number, packet.at
    for call in trace_index.receives(socket):
        if call.size == 0 and call.requested != 0:
            return call.number, call.until or call.at
    for call in trace_index.calls_by_socket[socket.number]:
        if call.name in SENDING and call.error in ("EPIPE", "ECONNRESET"):
            return call.number, call.until or call.at
    return None


def _is_fin_acked(trace_index: TraceIndex, socket: Socket, end: int) -> bool:
    """Return whether the peer's FIN, at offset `end`, was acknowledged: all data before it has arrived."""
    return any(each.acks is not None and each.acks > end for each in trace_index.packets_from[socket.number])
