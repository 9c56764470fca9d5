"""Datagrams that were discarded because the receive buffer of their socket was full.

The kernel counts drops since the socket was opened, not when they happened. So they are a problem only if the
buffer is full now; otherwise they are information.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bothends.why import phrases
from bothends.why.problems.problem import Problem, concerns
from bothends.why.wait_graph import WaitGraph

KIND = "drops"
_FULL: Final = 0.5  # of the limit: a buffer that drops is full, and a reader may just have taken some


def find(graph: WaitGraph) -> Iterator[Problem]:
    """Yield each UDP socket that has dropped datagrams."""
    for entry in graph.snapshot.sockets:
        if entry.protocol != "udp" or entry.memory is None or not entry.memory.drops or not entry.owners:
            continue
        memory = entry.memory
        is_full = bool(entry.recv_queue) and memory.received >= _FULL * memory.receive_limit
        now = (
            f" It is full now: {phrases.size(entry.recv_queue or 0)} are unread."
            if is_full
            else " It is not full now."
        )
        yield Problem(
            KIND,
            f"{phrases.count(memory.drops, 'datagram')} to {phrases.names(graph.owners(entry))} on"
            f" {phrases.connection(entry)} {'was' if memory.drops == 1 else 'were'} discarded since the"
            f" socket was opened: its receive buffer was full.{now}",
            seen=f"{phrases.owner(graph, entry)}: {memory.drops:,} drops, {memory.received:,} of"
            f" {memory.receive_limit:,} bytes of buffer in use",
            inferred="that the buffer was the reason: bad checksums and socket filters are counted there as"
            " well",
            remedy="It must read faster, or set a larger SO_RCVBUF.",
            is_wrong=is_full,
            **concerns([entry]),
        )
