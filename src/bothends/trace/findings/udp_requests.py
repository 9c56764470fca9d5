"""Datagrams that got no answer, and what their program did then. Pure; used by the rules of `udp_replies`.

1. A program asks an address if it sent to it before it received from it. Otherwise its datagrams are replies.
2. Only the datagrams after the last one that a socket received count: an answer to any of them shows that the
   program went on. Retries that succeed, losses that the program accepts, and answers out of order are no
   mistakes.
3. A program that asks again elsewhere (another address, a new socket, TCP) and is answered has recovered.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from bothends.trace.capture.calls import MOVING, RECEIVING, SENDING, WAITING
from bothends.trace.findings.base import BLOCKED_NS, TraceIndex
from bothends.trace.findings.endpoints import program_of
from bothends.trace.model import Call, Socket, SocketAddress

_MAX_TRIES: Final = 3  # the same datagram again: more often is a heartbeat
_MAX_TARGETS: Final = 4  # unanswered ports of one program: more is a scan
_COMPARED_BYTES: Final = 64
_INTERNET: Final = ("inet", "inet6")


@dataclass(frozen=True, slots=True)
class UdpRequest:
    """A datagram without a reply. `wait` is the call that waited for one, or the one that an error ended.

    `needs_reply`: the program can hardly have gone on without one: it is blocked, or tried again and gave up.
    """

    send: Call
    socket: Socket
    target: SocketAddress
    wait: Call | None
    is_connected: bool
    needs_reply: bool
    has_conversed: bool  # the socket had received a datagram before

    @property
    def is_refused(self) -> bool:
        """Whether an ICMP error came back: no socket has the port."""
        return self.wait is not None and is_refusal(self.wait)


def is_refusal(call: Call) -> bool:
    """Return whether a call reported the ICMP error "port unreachable"."""
    if call.error == "ECONNREFUSED":
        return True
    if call.name == "getsockopt" and "SO_ERROR" in call.arguments:
        return any("ECONNREFUSED" in each or each == "[111]" for each in call.arguments)
    return "MSG_ERRQUEUE" in call.flags and not call.failed and call.result is not None


class DatagramTraffic:
    """The datagrams of the Internet families, by program and address."""

    def __init__(self, trace_index: TraceIndex) -> None:
        self._index = trace_index
        self.waits_by_socket: dict[int, list[Call]] = defaultdict(list)
        self.sends_by_program: dict[str, list[Call]] = defaultdict(list)  # failed ones too
        self.sends_to: dict[int, list[Call]] = defaultdict(list)  # by port: sends that succeeded
        self.replies_to: dict[tuple[str, SocketAddress], list[Call]] = defaultdict(list)
        self._received_from: dict[
            tuple[str, SocketAddress], int
        ] = {}  # when a program first received from there
        self._asked: dict[tuple[str, SocketAddress], int] = {}
        self._receives_by_program: dict[str, list[Call]] = defaultdict(list)
        self._connects: list[Call] = []
        for call in trace_index.calls:
            if call.name in WAITING:
                for number in call.sockets:
                    self.waits_by_socket[number].append(call)
            elif call.name == "connect":
                self._connects.append(call)
            elif call.socket is not None and call.name in MOVING:
                socket = trace_index.trace.sockets[call.socket]
                if socket.kind == "datagram" and socket.family in _INTERNET:
                    self._add(call, socket)

    def _add(self, call: Call, socket: Socket) -> None:
        program = program_of(self._index, call.process)
        addresses = {call.address or socket.peer, *(each.address or socket.peer for each in call.messages)}
        if call.name in SENDING:
            self.sends_by_program[program].append(call)
            for address in addresses - {None}:
                assert address is not None
                self.replies_to[program, address].append(call)
                if not call.failed and call.result is not None:
                    self._asked.setdefault((program, address), call.at)
                    self.sends_to[address.port or 0].append(call)
        elif receives_data(call):
            self._receives_by_program[program].append(call)
            for address in addresses - {None}:
                assert address is not None
                self._received_from.setdefault((program, address), call.until or call.at)

    def is_reply(self, program: str, send: Call, target: SocketAddress) -> bool:
        """Return whether a program received from an address before it first sent to it."""
        received = self._received_from.get((program, target))
        return received is not None and received <= self._asked.get((program, target), send.at)

    def is_scan(self, program: str) -> bool:
        """Return whether a program tries many addresses: most of them are expected not to answer."""
        return self._silent[program] > _MAX_TARGETS

    @cached_property
    def _silent(self) -> Counter[str]:
        return Counter(key[0] for key in self.replies_to if key not in self._received_from)

    def has_recovered(self, send: Call, target: SocketAddress) -> bool:
        """Return whether the program was answered elsewhere later, or connected to the same port by TCP.

        The socket itself has received nothing later: see `_of_socket`.
        """
        program = program_of(self._index, send.process)
        keys = (program, target.port or 0), (program, send.data[:_COMPARED_BYTES])
        return any(self._answered.get(key, 0) >= send.at for key in keys)

    @cached_property
    def _answered(self) -> dict[tuple[str, int | bytes], int]:
        """When a program last sent a datagram that was answered: by port, and by content."""
        last_receive: dict[int, int] = {}
        for receives in self._receives_by_program.values():
            for receive in receives:
                last_receive[receive.socket or 0] = receive.until or receive.at
        found: dict[tuple[str, int | bytes], int] = {}
        for program, sends in self.sends_by_program.items():
            for each in sends:
                if each.failed or each.at > last_receive.get(each.socket or 0, 0):
                    continue
                address = each.address or self._index.trace.sockets[each.socket or 0].peer
                found[program, each.data[:_COMPARED_BYTES]] = each.at
                if address is not None:
                    found[program, address.port or 0] = each.at
        for call in self._connects:
            if not call.failed and call.address is not None and call.socket is not None:
                key = program_of(self._index, call.process), call.address.port or 0
                if self._index.trace.sockets[call.socket].kind == "stream":
                    found[key] = max(call.at, found.get(key, 0))
        return found


def receives_data(call: Call) -> bool:
    """Return whether a call received a datagram."""
    return (
        call.name in RECEIVING
        and not call.failed
        and call.result is not None
        and not call.flags & {"MSG_ERRQUEUE", "MSG_PEEK"}
    )


@lru_cache(maxsize=1)
def datagram_traffic(trace_index: TraceIndex) -> DatagramTraffic:
    """Return the datagrams of a trace, indexed."""
    return DatagramTraffic(trace_index)


def unanswered_requests(trace_index: TraceIndex) -> list[UdpRequest]:
    """Return the datagrams that got no answer, one for each socket and target, in order."""
    traffic, found = datagram_traffic(trace_index), list[UdpRequest]()
    for socket in trace_index.sockets("datagram"):
        if socket.family in _INTERNET:
            found += _of_socket(trace_index, traffic, socket)
    return [
        each
        for each in found
        if not traffic.is_scan(program_of(trace_index, each.send.process))
        and not traffic.has_recovered(each.send, each.target)
    ]


def _of_socket(trace_index: TraceIndex, traffic: DatagramTraffic, socket: Socket) -> Iterator[UdpRequest]:
    calls = trace_index.calls_by_socket[socket.number]
    receives = [call for call in calls if receives_data(call)]
    last = max((call.until or call.at for call in receives), default=0)
    tails: dict[SocketAddress, list[Call]] = defaultdict(list)
    for call in calls:
        if call.name not in SENDING or not call.size or call.at < last:
            continue
        target = call.address or socket.peer
        if target is None or not target.port or is_group(target):
            continue
        if not traffic.is_reply(program_of(trace_index, call.process), call, target):
            tails[target].append(call)
    if not tails:
        return
    waits = sorted((*calls, *traffic.waits_by_socket[socket.number]), key=lambda call: call.at)
    waits = [each for each in waits if each.at >= last and _is_wait(trace_index, each)]
    for target, sends in tails.items():
        yield _request(trace_index, socket, target, sends, waits, bool(receives))


def _request(
    trace_index: TraceIndex,
    socket: Socket,
    target: SocketAddress,
    sends: list[Call],
    waits: list[Call],
    has_conversed: bool,
) -> UdpRequest:
    chosen, wait = sends[0], None
    for send, following in zip(sends, [*sends[1:], None], strict=True):
        until = following.at if following is not None else None
        wait = next(
            (each for each in waits if each.at >= send.at and (until is None or each.at <= until)), None
        )
        if wait is not None:
            chosen = send
            break
    blocked = next(
        (
            each
            for each in reversed(waits)
            if each.until is None and each.at >= sends[-1].at and each.thread == sends[-1].thread
        ),
        None,
    )
    is_varied = len({each.data[:_COMPARED_BYTES] for each in sends}) > 1 or len(sends) > _MAX_TRIES
    if blocked is not None and not is_varied:
        wait = wait or blocked
    status = trace_index.process(chosen.process).status
    serves_others = wait is not None and _serves_others(trace_index, wait)
    needs_reply = not serves_others and (
        blocked is not None
        or (wait is not None and not is_varied and not has_conversed and wait.thread == chosen.thread)
        or (wait is not None and bool(status) and wait.thread == chosen.thread)
    )
    return UdpRequest(chosen, socket, target, wait, chosen.address is None, needs_reply, has_conversed)


def _serves_others(trace_index: TraceIndex, wait: Call) -> bool:
    """Return whether a call waits for a keyboard or for connections as well."""
    return 0 in wait.descriptors_waited or any(
        trace_index.trace.sockets[each].kind == "stream"
        and trace_index.trace.sockets[each].family in _INTERNET
        for each in wait.sockets
    )


def is_group(target: SocketAddress) -> bool:
    """Return whether an address stands for several machines: multicast, or broadcast."""
    return is_multicast(target) or (":" not in target.host and target.host.endswith(".255"))


def is_multicast(target: SocketAddress) -> bool:
    """Return whether an address is that of a multicast group."""
    first = target.host.partition(".")[0]
    return (first.isdigit() and 224 <= int(first) <= 239) or target.host.lower().startswith("ff")


def _is_wait(trace_index: TraceIndex, call: Call) -> bool:
    if is_refusal(call):
        return True
    if call.name not in RECEIVING | WAITING or receives_data(call):
        return False
    return (call.until or trace_index.end) - call.at >= BLOCKED_NS
