"""Rules about datagrams to a multicast group or to a broadcast address that a waiting socket missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import Binding, bound_sockets, capitalized, is_read, name_of
from bothends.trace.findings.udp_requests import datagram_traffic, is_group, is_multicast
from bothends.trace.model import Call, Socket, SocketAddress

_JOINING = ("IP_ADD_MEMBERSHIP", "IPV6_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP", "MCAST_JOIN_", "IP_ADD_SOURCE_MEM")


def multicast_not_joined(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a socket that waits at the port of a multicast group and has not joined the group."""
    for binding, send, target in _missed(trace_index):
        if not is_multicast(target):
            continue
        joins = _joins(trace_index, binding.socket)
        if _has_joined(joins, target):
            continue  # it has: `broadcast_missed`, or the interfaces differ, which calls alone do not show
        name = capitalized(name_of(trace_index, binding.process))
        joined = "has joined another group" if joins else "has not joined the group"
        yield Finding(
            "multicast-not-joined",
            "The receiver has not joined the multicast group",
            f"{capitalized(name_of(trace_index, send.process))} sends to {target}. {name} waits at "
            f"{binding.address}, but {joined}, and has received nothing.",
            f"Join {target.host} on the receiver's socket after bind().",
            (binding.call.number, *(each.number for each in joins[:1]), send.number),
            process=binding.process,
            sockets=(binding.socket.number, *([send.socket] if send.socket else [])),
            in_c="setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group);  /* struct ip_mreq */",
            in_python="sock.setsockopt(IPPROTO_IP, IP_ADD_MEMBERSHIP, inet_aton(group) + bytes(4))",
        )


def broadcast_missed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a socket that misses datagrams to a group because it is bound to one address of the machine."""
    for binding, send, target in _missed(trace_index):
        joins = _joins(trace_index, binding.socket)
        is_group_of_hosts = is_multicast(target)
        if binding.address.is_wildcard or binding.address.host == target.host:
            continue
        if is_group_of_hosts and not _has_joined(joins, target):
            continue  # `multicast_not_joined`
        name = capitalized(name_of(trace_index, binding.process))
        joined = f" has joined {target.host}, but" if is_group_of_hosts else ""
        yield Finding(
            "broadcast-missed",
            "The receiver is bound to one address, so it gets "
            + ("nothing of the multicast group" if is_group_of_hosts else "no broadcasts"),
            f"{capitalized(name_of(trace_index, send.process))} sends to {target}. {name}{joined} has bound "
            f"{binding.address}: it receives only datagrams to that address, and has received nothing.",
            "Bind the receiver to every address"
            + (
                ", or to that of the group; the interface is an argument of the join."
                if is_group_of_hosts
                else "."
            ),
            (binding.call.number, *(each.number for each in joins[:1]), send.number),
            process=binding.process,
            sockets=(binding.socket.number, *([send.socket] if send.socket else [])),
            in_c="address.sin_addr.s_addr = htonl(INADDR_ANY);  /* for bind() */",
            in_python='sock.bind(("", port))',
        )


def _missed(trace_index: TraceIndex) -> Iterator[tuple[Binding, Call, SocketAddress]]:
    """Return sockets that are read and received nothing, with a send to a group at their port."""
    traffic = datagram_traffic(trace_index)
    for binding in bound_sockets(trace_index, "datagram"):
        socket = binding.socket
        if socket.family == "unix" or not binding.address.port or trace_index.receives(socket):
            continue
        for send in traffic.sends_to[binding.address.port]:
            target = send.address or trace_index.trace.sockets[send.socket or 0].peer
            if target is None or not is_group(target) or send.socket == socket.number:
                continue
            same_family = (":" in target.host) == (":" in binding.address.host)
            is_answered = bool(trace_index.receives(trace_index.trace.sockets[send.socket or 0]))
            if same_family and binding.is_open_at(send.at) and not is_answered:
                if is_read(trace_index, socket.number):
                    yield binding, send, target
                break


def _has_joined(joins: list[Call], target: SocketAddress) -> bool:
    return any(target.host in " ".join(each.arguments) for each in joins)


def _joins(trace_index: TraceIndex, socket: Socket) -> list[Call]:
    return [
        call
        for call in trace_index.calls_by_socket[socket.number]
        if call.name == "setsockopt"
        and not call.failed
        and any(each in str(call.arguments) for each in _JOINING)
    ]
