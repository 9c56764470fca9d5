"""Put the kernel's reasons into words. Pure.

The reasons are those of enum skb_drop_reason and enum sk_rst_reason (include/net/dropreason-core.h and
include/net/rstreason.h). The kernel's own word always follows in parentheses, because it can be looked up.
"""

from __future__ import annotations

from typing import Final

from bothends.trace.model import KernelEvent

# Why a packet was dropped.
_DROPS: Final = {
    "NO_SOCKET": "no socket has that port",
    "SOCKET_RCVBUFF": "the socket's receive buffer was full",
    "SOCKET_BACKLOG": "the socket's backlog was full while its owner was in a call",
    "SOCKET_FILTER": "a filter of the socket rejected it",
    "PROTO_MEM": "the memory for all sockets of the protocol was used up",
    "NETFILTER_DROP": "a firewall rule dropped it",
    "TCP_LISTEN_OVERFLOW": "the listener's accept queue was full",
    "TCP_ZEROWINDOW": "the receive buffer was full, and the window was 0",
    "TCP_OVERWINDOW": "it was beyond the receive window",
    "TCP_ABORT_ON_DATA": "data arrived after the socket was closed",
    "TCP_OFO_QUEUE_PRUNE": "the receive buffer was full of segments that arrived out of order",
    "TCP_OFO_DROP": "the queue of segments that arrived out of order was full",
    "TCP_CSUM": "its TCP checksum was wrong",
    "UDP_CSUM": "its UDP checksum was wrong",
    "IP_CSUM": "its IP checksum was wrong",
    "SKB_CSUM": "its checksum was wrong",
    "TCP_FLAGS": "its TCP flags were invalid in this state",
    "TCP_RFC7323_PAWS": "its TCP timestamp was too old",
    "TCP_INVALID_SYN": "it was a SYN within an established connection",
    "TCP_INVALID_SEQUENCE": "its sequence number was outside the window",
    "TCP_INVALID_ACK_SEQUENCE": "it acknowledged bytes that were not sent",
    "IP_OUTNOROUTES": "there was no route to the destination",
    "IP_INNOROUTES": "there was no route for it",
    "IP_RPFILTER": "the reverse path filter (rp_filter) rejected its source",
    "NEIGH_FAILED": "the next host did not reply to ARP or neighbour discovery",
    "NEIGH_QUEUEFULL": "too many packets waited for ARP or neighbour discovery",
    "PKT_TOO_BIG": "it was larger than the MTU",
    "QDISC_DROP": "the interface's queue dropped it",
    "CPU_BACKLOG": "the processor's input queue was full",
    "NOMEM": "there was no memory",
}
# Why a RST was sent.
_RESETS: Final = {
    "NO_SOCKET": "no socket has that port or connection",
    "TCP_ABORT_ON_CLOSE": "the socket was closed with unread data",
    "TCP_ABORT_ON_DATA": "data arrived after the socket was closed",
    "TCP_ABORT_ON_LINGER": "the socket was closed with SO_LINGER 0, or its FIN-WAIT-2 timeout expired",
    "TCP_ABORT_ON_MEMORY": "there were too many orphaned sockets, or too little memory for them",
    "TCP_STATE": "the connection was aborted, for example because it was never accepted",
    "TCP_KEEPALIVE_TIMEOUT": "the peer replied to no keep-alive probe",
    "TCP_DISCONNECT_WITH_DATA": "the socket was disconnected with unsent or unread data",
    "TCP_TIMEWAIT_SOCKET": "the connection was in TIME-WAIT",
    "TCP_INVALID_ACK_SEQUENCE": "it acknowledged bytes that were not sent",
    "TCP_ACK_UNSENT_DATA": "it acknowledged bytes that were not sent",
    "TCP_FLAGS": "the flags were invalid in this state",
    "INVALID_SYN": "a SYN arrived within a connection",
}


def reason_text(event: KernelEvent) -> str:
    """Return why, in words with the kernel's word in parentheses; "" if the kernel gave no reason."""
    if not event.reason:
        return ""
    table = _RESETS if event.kind == "reset-sent" else _DROPS if event.kind == "drop" else {}
    words = table.get(event.reason)
    return f"{words} ({event.reason})" if words else event.reason


def kernel_text(event: KernelEvent) -> str:
    """Describe an event of the kernel in one line."""
    reason = reason_text(event)
    source = f" from {event.source}" if event.source is not None else ""
    because = f": {reason}" if reason else ""
    match event.kind:
        case "drop":
            what = {"tcp": "segment", "udp": "datagram"}.get(event.protocol, "packet")
            return f"kernel: dropped the {what}{source}{because}"
        case "reset-sent":
            return f"kernel: RST sent to {event.destination}{because}"
        case "reset-received":
            return f"kernel: RST received from {event.source}"
        case "retransmit":
            return f"kernel: segment to {event.destination} sent again"
        case "error":
            return f"kernel: error reported to the socket{because}"
