"""Rules about datagrams that a program itself discards: replies from elsewhere, and unsent output. Pure.

A server that is bound to every address answers from the one that the route to the client has. A client that
compares the source with the address that it asked discards such a reply, as one from a stranger.

Node.js binds a datagram socket, and looks up the name, before it sends: close() drops what is not sent yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import bound_sockets, capitalized, name_of, runs_node
from bothends.trace.findings.standstill import evidence
from bothends.trace.findings.udp_requests import is_group, receives_data
from bothends.trace.model import Call, Socket, SocketAddress

_COMPARED_BYTES: Final = 64


def udp_reply_discarded(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a client that received a reply from another address than it asked, and went on as without it."""
    for socket in trace_index.sockets("datagram"):
        if socket.family == "unix" or socket.peer is not None:
            continue
        asked, received = _conversation(trace_index, socket)
        if asked is None or asked.address is None or not received or not _has_failed(trace_index, asked):
            continue
        sources = {call.address for call in received}
        target, reply = asked.address, received[-1]
        if None in sources or any(_is_same(source, target) for source in sources if source is not None):
            continue
        if not any(call.socket is not None for call in trace_index.senders_of(reply)):
            continue
        reply_sender = trace_index.senders_of(reply)[-1]
        client, server = name_of(trace_index, asked.process), name_of(trace_index, reply_sender.process)
        times = "the reply" if len(received) == 1 else f"each of the {len(received)} replies"
        yield Finding(
            "udp-reply-discarded",
            "The reply comes from a different address than the one asked, and the client discards it",
            f"{capitalized(client)} asked {target} and received {times} from {reply.address}: {server} is "
            "bound to every address, so the kernel chose the source by the route. "
            f"{capitalized(client)} went on as if nothing had come: probably it compares the source with "
            "the address that it asked.",
            "Let the server answer from the address that was asked: bind a socket to each address, or use "
            "IP_PKTINFO. Or let the client know a reply by a number in it, not by its address.",
            evidence(asked, reply_sender, reply),
            "inferred",
            f"the reply came from another host, and {client} {_outcome(trace_index, asked)}",
            process=reply_sender.process,
            sockets=(socket.number, reply_sender.socket or 0),
            in_c="setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &(int){1}, sizeof(int));  /* recvmsg() */",
            in_python='sock.bind(("127.0.0.2", port))   # the address that clients use, not ""',
        )


def _conversation(trace_index: TraceIndex, socket: Socket) -> tuple[Call | None, list[Call]]:
    """Return a request that a socket sent, to one address alone, and what it received; or None."""
    calls = trace_index.calls_by_socket[socket.number]
    sends = [call for call in calls if call.name in SENDING and call.size]
    received = [call for call in calls if receives_data(call)]
    if not sends or (received and (received[0].until or 0) < sends[0].at):
        return None, []
    targets = {call.address for call in sends}
    contents = {call.data[:_COMPARED_BYTES] for call in sends}
    target = sends[0].address
    if len(targets) > 1 or len(contents) > 1 or target is None or is_group(target):
        return None, []
    return sends[0], received


def _is_same(source: SocketAddress, target: SocketAddress) -> bool:
    return source.host.removeprefix("::ffff:") == target.host.removeprefix("::ffff:")


def _has_failed(trace_index: TraceIndex, asked: Call) -> bool:
    return bool(_outcome(trace_index, asked))


def _outcome(trace_index: TraceIndex, asked: Call) -> str:
    """Return how a program shows that it has no reply: "" if it does not."""
    status = trace_index.process(asked.process).status
    if status and status > 0:
        return f"exited with status {status}"
    last = trace_index.calls_by_socket[asked.socket or 0][-1]
    return "still waits" if last.until is None and last.name in RECEIVING else ""


def closed_before_sent(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a datagram socket of Node.js that was closed before anything was sent, while a server waits."""
    idle = [
        each
        for each in bound_sockets(trace_index, "datagram")
        if each.address.port and not any(map(receives_data, trace_index.calls_by_socket[each.socket.number]))
    ]
    found: dict[int, list[Call]] = {}
    for socket in trace_index.sockets("datagram"):
        calls = trace_index.calls_by_socket[socket.number]
        close = next((call for call in calls if call.name == "close" and not call.failed), None)
        if close is None or any(call.name in MOVING | {"connect"} for call in calls):
            continue
        bind = next((call for call in calls if call.name == "bind" and not call.failed), None)
        if bind is None or bind.address is None or bind.address.port:
            continue
        if runs_node(trace_index, close.process):
            found.setdefault(close.process, []).append(close)
    for process, closes in found.items():
        servers = [each for each in idle if each.process != process and each.is_open_at(closes[0].at)]
        if not servers:
            continue
        name, server = name_of(trace_index, process), name_of(trace_index, servers[0].process)
        sockets = "a socket" if len(closes) == 1 else f"{len(closes)} sockets"
        yield Finding(
            "closed-before-sent",
            "A datagram socket was closed before anything was sent",
            f"{capitalized(name)} bound {sockets} to any port, sent nothing, and closed "
            f"{'it' if len(closes) == 1 else 'them'}: probably it called close() right after send(). "
            f"Node.js sends only when it has bound the socket and looked up the name, and close() drops the "
            f"datagram. {capitalized(server)} waits at {servers[0].address} and has received nothing.",
            "Call close() in the callback of send(), when the datagram has left.",
            evidence(*closes[:3]),
            "inferred",
            "the socket was bound as send() of Node.js does, and nothing was sent",
            process=process,
            sockets=tuple(call.socket or 0 for call in closes),
            in_c="",
            in_python="",
        )
