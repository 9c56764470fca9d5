"""Turn records of tracepoints into events of the kernel. Pure.

Facts of Linux 6.18, and what follows:

1. A dropped packet has no addresses (skb:kfree_skb). They come from another record: of the failed delivery
   just before (udp:udp_fail_queue_rcv_skb), or of the socket that received it (sock:inet_sock_set_state).
   Without any of these the event has no addresses.
2. Most freed packets are not lost. Only reasons in `DROP_REASONS` count, and the kernel's filter leaves out
   all others.
3. A RST may have been reported as a drop, too: the packet that it answers. One event is enough.
4. inet_sk_error_report with error 0 tells that an error was cleared.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from bothends.trace.capture.kernel_formats import EventFormat, FieldValue, addresses_of
from bothends.trace.model import KernelEvent, KernelEventKind, SocketAddress, trim_oldest

DROP_REASONS: Final = frozenset(
    {
        "NO_SOCKET",
        "SOCKET_FILTER",
        "SOCKET_RCVBUFF",
        "SOCKET_BACKLOG",
        "PROTO_MEM",
        "NETFILTER_DROP",
        "TCP_CSUM",
        "UDP_CSUM",
        "IP_CSUM",
        "SKB_CSUM",
        "TCP_FLAGS",
        "TCP_ABORT_ON_DATA",
        "TCP_ZEROWINDOW",
        "TCP_OVERWINDOW",
        "TCP_RFC7323_PAWS",
        "TCP_LISTEN_OVERFLOW",
        "TCP_INVALID_SEQUENCE",
        "TCP_INVALID_ACK_SEQUENCE",
        "TCP_INVALID_SYN",
        "TCP_OFO_QUEUE_PRUNE",
        "TCP_OFO_DROP",
        "TCP_MD5NOTFOUND",
        "TCP_MD5UNEXPECTED",
        "TCP_MD5FAILURE",
        "TCP_AUTH_HDR",
        "TCP_MINTTL",
        "IP_OUTNOROUTES",
        "IP_INNOROUTES",
        "IP_RPFILTER",
        "NEIGH_FAILED",
        "NEIGH_QUEUEFULL",
        "PKT_TOO_BIG",
        "QDISC_DROP",
        "CPU_BACKLOG",
        "XFRM_POLICY",
        "NOMEM",
    }
)

# The tracepoints, and the kind of event that each makes; "" for one that only adds to others.
TRACEPOINTS: Final[dict[str, KernelEventKind | Literal[""]]] = {
    "sock/inet_sock_set_state": "",
    "udp/udp_fail_queue_rcv_skb": "",
    "tcp/tcp_send_reset": "reset-sent",
    "tcp/tcp_receive_reset": "reset-received",
    "tcp/tcp_retransmit_skb": "retransmit",
    "tcp/tcp_retransmit_synack": "retransmit",
    "tcp/tcp_bad_csum": "drop",
    "sock/inet_sk_error_report": "error",
    "skb/kfree_skb": "drop",
}
_KINDS: Final = {name.partition("/")[2]: kind for name, kind in TRACEPOINTS.items()}

MAX_REMEMBERED: Final = 20_000  # sockets, and packets
NEARBY_NS: Final = 1_000_000  # between two records about one packet
_PROTOCOLS: Final[dict[FieldValue, Literal["tcp", "udp"]]] = {6: "tcp", 17: "udp"}
_NO_REASON: Final = frozenset({"NOT_SPECIFIED", "ERROR", "MAX"})

_AddressPair: TypeAlias = tuple[SocketAddress, SocketAddress]


class KernelRecord(NamedTuple):
    """A decoded record of a tracepoint. `at` is wall-clock time in nanoseconds."""

    at: int
    format: EventFormat
    fields: dict[str, FieldValue]

    def number(self, name: str) -> int:
        """Return an integer field; 0 if there is none."""
        value = self.fields.get(name, 0)
        return value if isinstance(value, int) else 0

    def symbol(self, name: str) -> str:
        """Return the kernel's name of a field's value."""
        return self.format.symbol(name, self.number(name))


class KernelRecordJoiner:
    """Turns records, in the order of time, into events. Their numbers are 0."""

    def __init__(self) -> None:
        self._sockets: dict[int, _AddressPair] = {}  # local and peer of TCP sockets, by kernel address
        self._resets: dict[int, int] = {}  # when a packet was answered by a RST, by kernel address
        self._undelivered: dict[int, tuple[int, _AddressPair]] = {}  # time and addresses, by thread

    def events(self, records: Iterable[KernelRecord]) -> Iterator[KernelEvent]:
        """Return the events of records."""
        for record in records:
            event = self._event(record)
            if event is not None:
                yield event

    def _event(self, record: KernelRecord) -> KernelEvent | None:
        kind = _KINDS.get(record.format.name)
        ends = addresses_of(record.fields)
        if kind is None:
            return None
        if not kind:
            return self._remember(record, ends)
        event = KernelEvent(0, record.at, kind, thread=record.number("common_pid"))
        match record.format.name:
            case "kfree_skb":
                return self._drop(record, event)
            case "inet_sk_error_report":
                protocol = _PROTOCOLS.get(record.number("protocol"))
                error = abs(record.number("error"))
                if not error or protocol is None or ends is None:
                    return None
                event.protocol, event.reason = protocol, errno.errorcode.get(error, str(error))
                event.destination, event.source = ends
                return event
            case "tcp_bad_csum":
                event.reason = "TCP_CSUM"
            case "tcp_send_reset":
                reason = record.symbol("reason")
                event.reason = "" if reason in _NO_REASON else reason
                if skb := record.number("skbaddr"):
                    self._resets[skb] = record.at
                    trim_oldest(self._resets, MAX_REMEMBERED)
        if ends is None:
            return None
        event.protocol = "tcp"
        event.source, event.destination = ends
        if kind == "reset-received":  # the fields are those of the socket that received it
            event.destination, event.source = ends
        return event

    def _remember(self, record: KernelRecord, ends: _AddressPair | None) -> KernelEvent | None:
        if ends is None:
            return None
        if record.format.name == "udp_fail_queue_rcv_skb":
            self._undelivered[record.number("common_pid")] = record.at, ends
            trim_oldest(self._undelivered, MAX_REMEMBERED)
        elif record.symbol("newstate") == "TCP_CLOSE":
            self._sockets.pop(record.number("skaddr"), None)
        else:
            self._sockets[record.number("skaddr")] = ends
            trim_oldest(self._sockets, MAX_REMEMBERED)
        return None

    def _drop(self, record: KernelRecord, event: KernelEvent) -> KernelEvent | None:
        event.reason = record.symbol("reason")
        answered_at = self._resets.pop(record.number("skbaddr"), None)
        if event.reason not in DROP_REASONS:
            return None
        if answered_at is not None and record.at - answered_at <= NEARBY_NS:
            return None
        at, ends = self._undelivered.pop(event.thread, (0, None))
        if ends is not None and record.at - at <= NEARBY_NS:
            event.protocol = "udp"
            event.source, event.destination = ends
            return event
        known = self._sockets.get(record.number("rx_sk"))
        if known is not None:
            event.protocol = "tcp"
            event.destination, event.source = known
        return event
