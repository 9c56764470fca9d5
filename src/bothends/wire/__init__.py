"""Hosts of one's own, joined by a wire whose every IP packet passes through us. Linux, no root needed.

    plan.py        which hosts, with which addresses, interfaces and routes: values
    packets.py     IP headers, fragments, ICMP errors: bytes
    switch.py        where a packet goes and what the toxics make of it: no I/O
    namespaces.py  network namespaces inside a user namespace of our own, and why not
    netlink.py     links, addresses and routes, by rtnetlink(7)
    interfaces.py  TUN devices, or veth pairs and packet sockets: how packets come to us
    supervisor.py  the first process inside: makes the hosts, runs their commands
    attach.py        how a program of its owner comes into a host of a wire that runs
    socket_activity.py      what the sockets of a host are doing
    wire.py        the life of it all, seen from outside: open, run, stop

Rank 2: imports toxics, errors and text. Begin with `wire.py`.
"""

from bothends.wire.plan import HostCommand, Topology, build_topology
from bothends.wire.switch import PacketEvent
from bothends.wire.wire import Wire

__all__ = ["HostCommand", "PacketEvent", "Topology", "Wire", "build_topology"]
