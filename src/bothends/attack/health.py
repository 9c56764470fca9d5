"""Memory, descriptors, threads and processor of a server, from /proc (proc(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bothends.endpoints import Endpoint
from bothends.osutil.process_info import (
    ProcessInfo,
    descriptors,
    process_tree,
    read_process,
    scheduling_times,
    thread_ids,
)
from bothends.socket_table import read_table
from bothends.socket_table.entry import SocketEntry
from bothends.socket_table.owners import netns_inode

_MAX_READ: Final = 32  # processes whose memory is read each time


@dataclass(frozen=True, slots=True)
class Health:
    """All processes of a server together: `memory` in bytes (PSS: pages that they share count once)."""

    memory: int = 0
    descriptors: int = 0
    threads: int = 0
    processes: int = 0
    zombies: int = 0


def read_health(pids: list[int]) -> Health:
    """Read the health of processes and their descendants. Processes that have exited count as nothing."""
    found = {each.pid: each for pid in pids for each in process_tree(pid)}
    alive = [pid for pid, each in found.items() if not each.is_zombie]
    return Health(
        memory=_memory([found[pid] for pid in alive]),
        descriptors=sum(len(descriptors(pid)) for pid in alive),
        threads=sum(len(thread_ids(pid)) for pid in alive),
        processes=len(alive),
        zombies=len(found) - len(alive),
    )


def read_memory_usage(pids: list[int]) -> int:
    """Read only the memory of processes and their descendants, in bytes."""
    return _memory([each for pid in pids for each in process_tree(pid) if not each.is_zombie])


def _memory(processes: list[ProcessInfo]) -> int:
    """Return the memory of processes. Of many, some are read and the others estimated, because it takes long.

    RSS where PSS is not readable, because the process is another user's.
    """
    read = processes[:: max(1, len(processes) // _MAX_READ)]
    total = sum(_proportional_memory(each) for each in read)
    return total * len(processes) // len(read) if read else 0


def _proportional_memory(process: ProcessInfo) -> int:
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return process.rss
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else process.rss


def processor_time(pids: list[int]) -> float:
    """Return the seconds that the threads of processes and their descendants ran so far."""
    return sum(scheduling_times(each.pid)[0] for pid in pids for each in process_tree(pid))


def find_server(endpoint: Endpoint) -> list[int]:
    """Return the processes of this machine that hold an endpoint's listener, if they are visible.

    Descendants of one of them are left out: they are counted with it.
    """
    netns = netns_inode("self")

    def holds(entry: SocketEntry) -> bool:
        if endpoint.is_unix:
            return entry.family == "unix" and bool(endpoint.path) and entry.local.host == endpoint.path
        if entry.netns != netns or entry.local.port != endpoint.port:
            return False
        if entry.local.host not in (endpoint.host, f"::ffff:{endpoint.host}", "0.0.0.0", "::", ""):
            return False
        protocol = "udp" if endpoint.is_datagram else "tcp"
        return entry.kind.removesuffix("6") == protocol and entry.state in ("LISTEN", "UNCONNECTED")

    table = read_table(predicate=holds, with_options=False)
    pids = {owner.pid for entry in table.sockets for owner in entry.owners}
    return sorted(pid for pid in pids if (each := read_process(pid)) and each.parent not in pids)
