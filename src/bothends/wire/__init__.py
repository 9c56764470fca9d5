"""Hosts in network namespaces, whose IP packets all pass through this process. Linux, no root needed.

    plan.py             the hosts, with their addresses, interfaces and routes; values only
    packets.py          IP headers, fragments, ICMP errors; bytes only
    offload.py          segmentation and checksums that a host's kernel has left undone
    switch.py           forwarding and toxics, without I/O
    netlink.py          links, addresses and routes, by rtnetlink(7)
    interfaces.py       TUN devices, or veth pairs and packet sockets
    supervisor.py       the first process inside: creates the hosts and runs their commands
    attach.py           enter a host of a running wire from another process
    socket_activity.py  listening sockets and unacknowledged data of a host
    wire.py             open a wire, run its commands, forward packets; start reading here

Rank 3: imports toxics, osutil, socket_table and errors. Namespaces are made by `bothends.osutil.namespaces`.
"""

from bothends.wire.plan import HostCommand, Topology, build_topology
from bothends.wire.switch import PacketEvent
from bothends.wire.wire import Wire

__all__ = ["HostCommand", "PacketEvent", "Topology", "Wire", "build_topology"]
