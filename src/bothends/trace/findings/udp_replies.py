"""Rules about datagrams that got no reply: where they went, and where the reply went. Pure.

Each rule names one cause. A program that sends and does not wait draws a finding only if a traced server
waits for datagrams at another address and received none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Final

from bothends.trace.capture.calls import RECEIVING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, Finding, TraceIndex
from bothends.trace.findings.endpoints import (
    Binding,
    bound_sockets,
    capitalized,
    is_read,
    listeners,
    name_of,
    program_of,
)
from bothends.trace.findings.udp_requests import (
    UdpRequest,
    datagram_traffic,
    receives_data,
    unanswered_requests,
)
from bothends.trace.model import Call, Packet, Socket, SocketAddress
from bothends.trace.rendering import formatting

_REPLY_IN_C: Final = (
    "sendto(fd, reply, size, 0, (struct sockaddr *)&from, length);  /* fd, from: recvfrom() */"
)
_MAX_SENDS: Final = 1_000  # sends after a receive that are looked at
_REPLY_IN_PYTHON: Final = "data, address = sock.recvfrom(65535); sock.sendto(reply, address)"


class _Explainer:
    """Finds out why requests got no reply."""

    def __init__(self, trace_index: TraceIndex) -> None:
        self._index = trace_index
        self._bound = [
            each for each in bound_sockets(trace_index, "datagram") if each.socket.family != "unix"
        ]
        self._listeners = [each for each in listeners(trace_index) if each.address.port]
        self._bound_by_port: dict[int | None, list[Binding]] = defaultdict(list)
        for each in self._bound:
            self._bound_by_port[each.address.port].append(each)
        self._traffic = datagram_traffic(trace_index)
        self._hosts = {each.local.host for each in trace_index.trace.sockets.values() if each.local}

    def findings(self) -> Iterator[Finding]:
        """Return a finding for each request whose reply is missing because of a mistake."""
        seen = set()
        for request in unanswered_requests(self._index):
            finding = self._explain(request)
            if finding is None:
                continue
            key = finding.rule, program_of(self._index, request.send.process), request.target
            if key not in seen:
                seen.add(key)
                yield finding

    def _explain(self, request: UdpRequest) -> Finding | None:
        at = request.send.at
        received = self._receives_of(request.send)
        if received:
            return self._explain_reply(request, received[0])
        if self._was_lost(request.send):
            return self._unanswered(request, "It was lost on the path, which can happen to any datagram.")
        reached = [
            each
            for each in self._bound_by_port[request.target.port]
            if self._is_reached(each, request.target)
        ]
        is_own = any(each.socket is request.socket for each in reached)
        there = [each for each in reached if each.is_open_at(at)]
        if there and not request.is_refused:
            return None if is_own else self._not_received(request, there)
        if there:
            if any(each.until is not None for each in there):
                return None  # it was closed, perhaps with the datagram unread
            return self._refused_despite(request, there[0])
        return self._nothing_there(request, reached)

    def _is_reached(self, binding: Binding, target: SocketAddress) -> bool:
        """Return whether a socket receives datagrams to an address: :: receives IPv4 unless IPV6_V6ONLY."""
        if binding.address.host == "::" and ":" not in target.host and target.host:
            for call in self._index.calls_by_socket[binding.socket.number]:
                if call.name == "setsockopt" and "IPV6_V6ONLY" in call.arguments and "[1]" in call.arguments:
                    return False
        return binding.is_reached_by(target)

    def _is_here(self, host: str) -> bool:
        """Return whether an address is one of this machine, as far as the trace shows."""
        return host.startswith("127.") or host in ("::1", "0.0.0.0", "::") or host in self._hosts

    # Where the datagram went

    def _nothing_there(self, request: UdpRequest, reached: list[Binding]) -> Finding | None:
        """Explain a datagram to an address that no traced socket had when it was sent."""
        at, target = request.send.at, request.target
        program = program_of(self._index, request.send.process)
        others = [each for each in self._bound if program_of(self._index, each.process) != program]
        sender = capitalized(name_of(self._index, request.send.process))
        word = " An ICMP error (port unreachable) came back, as ECONNREFUSED." if request.is_refused else ""
        for each in reversed(reached):
            if request.wait is not None and each.until is not None and each.until <= at:
                server = name_of(self._index, each.process)
                earlier = formatting.duration(at - each.until)
                return self._finding(
                    request,
                    "udp-receiver-gone",
                    "The server's socket was closed before the datagram was sent",
                    f"{sender} sends to {target}; {server} had closed its socket there {earlier} "
                    f"before.{word}",
                    "Keep the server's socket open as long as clients may send.",
                    each,
                )
        for each in reached:
            if request.wait is not None and each.since > at:
                return self._finding(
                    request,
                    "udp-too-early",
                    "The datagram was sent before the server bound its port",
                    f"{sender} sent to {target} {formatting.duration(each.since - at)} before "
                    f"{name_of(self._index, each.process)} bound {each.address}, and did not send "
                    f"again.{word}",
                    "Wait for the reply with a time limit and send again, or start the server first.",
                    each,
                    in_c="setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);",
                    in_python="sock.settimeout(1)  # on TimeoutError send again",
                )
        if request.wait is None:  # it does not wait for an answer: a server must wait for the datagram
            others = [each for each in others if not self._has_received(each.socket)]
        if not request.is_refused and not self._is_here(target.host):
            others = []
        same_port = [each for each in others if each.address.port == target.port and each.is_open_at(at)]
        if same_port:
            other = same_port[0]
            family = (":" in other.address.host) != (":" in target.host)
            return self._finding(
                request,
                "udp-wrong-address",
                "The datagram goes to another address than the server has",
                f"{sender} sends to {target}; {name_of(self._index, other.process)} has bound {other.address}"
                f"{', another address family' if family else ' only'}.{word}",
                "Set IPV6_V6ONLY to 0 before bind(), or give each family a socket."
                if other.address.is_wildcard
                else f"Bind the server to every address, or send to {other.address}.",
                other,
                in_c="address.sin_addr.s_addr = htonl(INADDR_ANY);  /* for bind() */",
                in_python='sock.bind(("", port))',
            )
        for each in self._listeners:
            if each.address.port == target.port and each.is_open_at(at):
                return self._finding(
                    request,
                    "udp-to-tcp",
                    "The client uses UDP, and the server uses TCP",
                    f"{sender} sends a datagram to UDP port {target.port}; "
                    f"{name_of(self._index, each.process)} "
                    f"listens on TCP port {each.address.port}, which is another port.{word}",
                    "Use the same protocol at both ends.",
                    each,
                    in_c="fd = socket(AF_INET, SOCK_STREAM, 0); connect(fd, address, size);",
                    in_python="sock = socket.create_connection(address)",
                )
        idle = [each for each in others if each.is_open_at(at) and not self._has_received(each.socket)]
        idle = [each for each in idle if is_read(self._index, each.socket.number) and each.address.port]
        if len(idle) == 1 and not _is_swapped(idle[0].address.port or 0, target.port or 0):
            other = idle[0]
            return self._finding(
                request,
                "udp-other-port",
                "The datagram goes to another port than the server has",
                f"{sender} sends to {target}, where no traced program receives; "
                f"{name_of(self._index, other.process)} waits at {other.address} and has received "
                f"nothing.{word}",
                "Use the same port in both programs.",
                other,
            )
        if request.is_refused:
            return self._finding(
                request,
                "udp-port-unreachable",
                "No socket has the port that the datagram was sent to",
                f"{sender} sent {_data(request.send)} to {target}. No socket has that port there: an ICMP "
                "error (port unreachable) came back, and the socket's next call failed with ECONNREFUSED.",
                "Start the server first, and check its address and port with bothends sockets or ss -lun.",
            )
        if _is_swap_of_any(self._bound, target):
            return None
        return self._unanswered(request, "No traced program has that address.")

    def _not_received(self, request: UdpRequest, there: list[Binding]) -> Finding | None:
        """Explain a datagram to a bound socket that no program received."""
        if request.wait is None:
            return None
        target, source = request.target, request.socket.local
        connected = [each for each in there if each.socket.peer is not None and each.socket.peer.port]
        if len(connected) == len(there) and connected[0].socket.peer != source:
            return self._receiver_connected(request, connected[0])
        if any(not is_read(self._index, each.socket.number) for each in there) and len(there) > 1:
            return None  # `shared_port_unread` explains it
        reader = there[0]
        receives = self._index.receives(reader.socket)
        if any(each.at >= request.send.at and each.data[:64] == request.send.data[:64] for each in receives):
            return None  # probably received: two equal datagrams
        received = len(receives)
        name = name_of(self._index, reader.process)
        reads = [call for call in self._index.calls_by_socket[reader.socket.number] if call.name in RECEIVING]
        if not any(call.at > request.send.at or call.until is None for call in reads):
            reads_before = "1 earlier read" if received == 1 else f"{received:,} earlier reads"
            last = f" after its {reads_before}" if received else ""
            text = f"{capitalized(name)} has bound port {target.port} and did not read the datagram{last}."
            return self._unanswered(
                request,
                text,
                reader,
                process=reader.process,
                remedy="Let the server receive in a loop, always.",
            )
        return self._unanswered(request, "No program received it.", reader)

    def _refused_despite(self, request: UdpRequest, there: Binding) -> Finding:
        if there.socket.peer is not None and there.socket.peer != request.socket.local:
            return self._receiver_connected(request, there)
        return self._finding(
            request,
            "udp-wrong-address",
            "The server is probably in another network namespace",
            f"{capitalized(name_of(self._index, request.send.process))} sends to {request.target} and "
            f"gets an ICMP error, although {name_of(self._index, there.process)} has bound {there.address}: "
            "probably in another network namespace (a container).",
            "Send to the address that the container has on the shared network, or publish its port.",
            there,
            certainty="inferred",
            basis="a socket has that address, and the kernel found none",
        )

    def _receiver_connected(self, request: UdpRequest, there: Binding) -> Finding:
        server = name_of(self._index, there.process)
        return self._finding(
            request,
            "udp-receiver-connected",
            "The server's socket is connected to another client",
            f"{capitalized(server)} called connect() on its socket at {there.address}, so it receives only "
            f"datagrams from {there.socket.peer}. The kernel discarded {_data(request.send)} from "
            f"{request.socket.local or name_of(self._index, request.send.process)}.",
            "Do not connect the socket that serves all clients: use recvfrom() and sendto().",
            there,
            process=there.process,
            in_c=_REPLY_IN_C,
            in_python=_REPLY_IN_PYTHON,
        )

    # Where the reply went

    def _explain_reply(self, request: UdpRequest, receive: Call) -> Finding | None:
        """Explain a reply that is missing although the server received the request."""
        asker = receive.address or (receive.messages[0].address if receive.messages else None)
        asker = asker or request.socket.local
        program = program_of(self._index, receive.process)
        replies = self._replies_to(program, asker, receive)
        if not any(not each.failed for each in replies):
            replies += self._other_sends(receive)
        if request.wait is None:
            return self._reply_unread(request, receive, replies[0]) if replies else None
        server = capitalized(name_of(self._index, receive.process))
        client = name_of(self._index, request.send.process)
        for reply in replies:
            if reply.failed and reply.error != "EAGAIN":
                return self._reply_failed(request, receive, reply)
        for reply in replies:
            socket = self._index.trace.sockets[reply.socket or 0]
            target = reply.address or socket.peer
            if target is None or asker is None:
                continue
            if not _is_same_place(target, asker):
                if self._receives_of(reply):
                    continue  # another program received it: the server forwards messages
                return self._finding(
                    request,
                    "udp-reply-elsewhere",
                    "The server sends its reply to another address than the request came from",
                    f"{server} received {_data(request.send)} from {asker}, and sent its reply to {target}, "
                    f"where {client} does not receive.",
                    "Send the reply to the address that recvfrom() returned.",
                    None,
                    (receive, reply),
                    process=receive.process,
                    in_c=_REPLY_IN_C,
                    in_python=_REPLY_IN_PYTHON,
                )
            finding = self._reply_from_elsewhere(request, receive, reply, socket)
            if finding is not None:
                return finding
        replies = self._replies_to(program, asker, receive)
        if replies:
            return self._reply_unread(request, receive, replies[0])
        if not request.needs_reply:
            return None
        return self._finding(
            request,
            "unanswered-datagram",
            "A datagram got no reply",
            f"{server} received {_data(request.send)} from {client} and sent no reply.",
            "Send a reply to every request, to the address that recvfrom() returned; and let the client "
            "wait with a time limit.",
            None,
            (receive,),
            process=receive.process,
            in_c=_REPLY_IN_C,
            in_python=_REPLY_IN_PYTHON,
        )

    def _reply_failed(self, request: UdpRequest, receive: Call, reply: Call) -> Finding:
        target = reply.address or self._index.trace.sockets[reply.socket or 0].peer
        to = f" to {target}" if target is not None else ""
        server = capitalized(name_of(self._index, receive.process))
        why = ""
        if target is None and receive.address is None and reply.error in ("EINVAL", "EDESTADDRREQ"):
            why = ": the call has no address of the client, as neither had the receive before"
        return self._finding(
            request,
            "udp-reply-failed",
            "The server's reply was not sent",
            f"{server} received {_data(request.send)}, and its {reply.name}{to} failed with "
            f"{reply.error}{why}.",
            "Check the return value of each send. Reply on the socket that received, to the address "
            "that recvfrom() returned; in C its length must be set before recvfrom().",
            None,
            (receive, reply),
            process=receive.process,
            in_c="socklen_t length = sizeof from;  /* then recvfrom(fd, ..., &from, &length), sendto() */",
            in_python=_REPLY_IN_PYTHON,
        )

    def _reply_from_elsewhere(
        self, request: UdpRequest, receive: Call, reply: Call, socket: Socket
    ) -> Finding | None:
        """Return a finding if a connected client asked another address than the reply came from."""
        packets = [
            event
            for link in self._index.trace.effects_of(reply.number)
            if isinstance(event := self._index.trace.event(link.effect), Packet)
        ]
        source = packets[0].source if packets else socket.local
        if not request.is_connected or source is None or not source.port or source == request.target:
            return None
        server, client = name_of(self._index, receive.process), name_of(self._index, request.send.process)
        evidence: tuple[Call | Packet, ...] = (receive, reply, *packets[:1])
        if source.port != request.target.port:
            return self._finding(
                request,
                "udp-reply-from-other-socket",
                "The reply comes from another port than the client asked",
                f"{capitalized(server)} received the request at {request.target} and replied from {source}, "
                f"another socket. {capitalized(client)}'s socket is connected to {request.target}, so "
                "the kernel discards datagrams from elsewhere.",
                "Reply on the socket that received the request.",
                None,
                evidence,
                process=receive.process,
                in_c=_REPLY_IN_C,
                in_python=_REPLY_IN_PYTHON,
            )
        if source.is_wildcard:
            return None
        return self._finding(
            request,
            "udp-reply-from-other-address",
            "The reply comes from another address than the client asked",
            f"{capitalized(client)} asked {request.target}; {server} is bound to every address, and the "
            f"kernel chose {source.host} as the source of its reply. The client's socket is connected to "
            f"{request.target}, so the kernel discards the reply.",
            "Bind one socket to each address of the machine, or reply from the address that the request "
            "was sent to (IP_PKTINFO).",
            None,
            evidence,
            process=receive.process,
            in_c="setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &(int){1}, sizeof(int));",
            in_python='sock.bind(("192.0.2.1", port))  # the address that clients use',
        )

    def _reply_unread(self, request: UdpRequest, receive: Call, reply: Call) -> Finding | None:
        """Return a finding about a reply that was sent to the right place and not received."""
        lost = self._was_lost(reply)
        if lost:
            return self._unanswered(
                request, "The reply was lost on the path, which can happen to any datagram."
            )
        if self._receives_of(reply):
            return None
        local = request.socket.local
        others = [
            each
            for each in self._index.calls_by_process[request.send.process]
            if each.at > request.send.at
            and each.thread == request.send.thread
            and (each.until or self._index.end) - each.at >= BLOCKED_NS
            and self._waits_elsewhere(each, request.socket)
        ]
        if not others:
            return None
        other = self._index.trace.sockets[others[0].socket or others[0].sockets[0]]
        place = f"descriptor {others[0].descriptor}" if others[0].socket else "another socket"
        return self._finding(
            request,
            "udp-reply-unread",
            "The client waits for the reply on another socket than it sent from",
            f"The reply went to {local or 'the port that sent the request'} (descriptor "
            f"{request.send.descriptor}), and {name_of(self._index, request.send.process)} waits on "
            f"{place} ({other.local or 'not bound'}).",
            "Send the request and receive the reply on the same socket.",
            None,
            (receive, reply, others[0]),
            in_c="sendto(fd, ...); recvfrom(fd, ...);  /* the same fd */",
            in_python="sock.sendto(request, address); reply, _ = sock.recvfrom(65535)",
        )

    def _waits_elsewhere(self, call: Call, socket: Socket) -> bool:
        """Return whether a call waits in vain for another datagram socket, and for that one only."""
        if call.name in RECEIVING and not receives_data(call):
            number = call.socket
        elif call.name in WAITING and not call.ready and len(call.sockets) == 1:
            number = call.sockets[0]
        else:
            return False
        if number in (None, socket.number):
            return False
        other = self._index.trace.sockets[number or 0]
        return other.kind == "datagram" and other.family != "unix"

    def _replies_to(self, program: str, asker: SocketAddress | None, receive: Call) -> list[Call]:
        """Return what a program sent to an address after a receive."""
        if asker is None:
            return []
        return [each for each in self._traffic.replies_to[program, asker] if each.at >= receive.at]

    def _other_sends(self, receive: Call) -> list[Call]:
        """Return the sends of datagrams by the receiver's program until its next request."""
        following = next(
            (each.until or each.at for each in self._index.later_calls(receive) if receives_data(each)), None
        )
        sends = self._traffic.sends_by_program[program_of(self._index, receive.process)]
        at = bisect_left(sends, receive.at, key=lambda call: call.at)
        end = len(sends) if following is None else bisect_left(sends, following, key=lambda call: call.at)
        return [each for each in sends[at : min(end, at + _MAX_SENDS)] if each.thread == receive.thread]

    # Helpers

    def _receives_of(self, send: Call) -> list[Call]:
        """Return the calls that received a datagram."""
        found = []
        for link in self._index.trace.effects_of(send.number):
            event = self._index.trace.event(link.effect)
            if isinstance(event, Packet):
                events = [
                    self._index.trace.event(each.effect)
                    for each in self._index.trace.effects_of(event.number)
                ]
                found += [each for each in events if isinstance(each, Call)]
            elif isinstance(event, Call):
                found.append(event)
        return [each for each in found if receives_data(each)]

    def _was_lost(self, send: Call) -> bool:
        events = (self._index.trace.event(link.effect) for link in self._index.trace.effects_of(send.number))
        return any(isinstance(each, Packet) and bool(each.lost) for each in events)

    def _has_received(self, socket: Socket) -> bool:
        return any(True for _ in self._index.receives(socket))

    def _unanswered(
        self,
        request: UdpRequest,
        text: str,
        binding: Binding | None = None,
        *,
        process: int | None = None,
        remedy: str = "UDP loses datagrams without an error: wait with a time limit, then send again.",
    ) -> Finding | None:
        if not request.needs_reply:
            return None
        return self._finding(
            request,
            "unanswered-datagram",
            "A datagram got no reply",
            f"{_data(request.send)} to {request.target} got no reply. {text}",
            remedy,
            binding,
            process=process if process is not None else request.send.process,
            in_c="setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);",
            in_python="sock.settimeout(1)  # on TimeoutError send again",
        )

    def _finding(
        self,
        request: UdpRequest,
        rule: str,
        title: str,
        text: str,
        remedy: str,
        binding: Binding | None = None,
        evidence: tuple[Call | Packet, ...] = (),
        **fields: object,
    ) -> Finding:
        calls = [request.send, *evidence]
        calls += [request.wait] if request.wait is not None else []
        calls += [binding.call] if binding is not None else []
        calls = list({each.number: each for each in calls}.values())
        calls.sort(key=lambda each: (each.at, each.number))
        fields.setdefault("process", request.send.process)
        sockets = {request.socket.number} | {
            each.socket for each in calls if isinstance(each, Call) and each.socket
        }
        return Finding(
            rule,
            title,
            text,
            remedy,
            tuple(each.number for each in calls),
            sockets=tuple(sorted(sockets)),
            **fields,  # type: ignore[arg-type]
        )


def _data(send: Call) -> str:
    return formatting.quoted(send.data, send.size, 24)


def _is_same_place(target: SocketAddress, asker: SocketAddress) -> bool:
    if target.port != asker.port:
        return False
    return target.host == asker.host or asker.is_wildcard or target.is_wildcard


def _is_swapped(port: int, other: int) -> bool:
    return port == ((other & 0xFF) << 8 | other >> 8)


def _is_swap_of_any(bound: list[Binding], target: SocketAddress) -> bool:
    return any(_is_swapped(each.address.port or 0, target.port or 0) for each in bound)


@lru_cache(maxsize=1)
def _found(trace_index: TraceIndex) -> tuple[Finding, ...]:
    return tuple(_Explainer(trace_index).findings())


def _only(rule: str, trace_index: TraceIndex) -> Iterator[Finding]:
    return (each for each in _found(trace_index) if each.rule == rule)


udp_receiver_gone = partial(_only, "udp-receiver-gone")
udp_too_early = partial(_only, "udp-too-early")
udp_wrong_address = partial(_only, "udp-wrong-address")
udp_to_tcp = partial(_only, "udp-to-tcp")
udp_other_port = partial(_only, "udp-other-port")
udp_port_unreachable = partial(_only, "udp-port-unreachable")
udp_receiver_connected = partial(_only, "udp-receiver-connected")
udp_reply_failed = partial(_only, "udp-reply-failed")
udp_reply_elsewhere = partial(_only, "udp-reply-elsewhere")
udp_reply_from_other_socket = partial(_only, "udp-reply-from-other-socket")
udp_reply_from_other_address = partial(_only, "udp-reply-from-other-address")
udp_reply_unread = partial(_only, "udp-reply-unread")
unanswered_datagram = partial(_only, "unanswered-datagram")
