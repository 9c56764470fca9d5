"""Read the kernel's counters of dropped and reset packets: /proc/net/netstat, snmp and snmp6. Needs no root.

    parse_counters     the content of such a file
    read_counters      the counters of this network namespace
    CounterDifference  how much they have grown

The counters are those of a whole network namespace: other programs count, too. So a difference is evidence
for what something else has shown, and never a finding by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

# The counters that tell of a loss, a reset or a timeout (Linux: networking/snmp_counter.rst).
COUNTERS: Final = frozenset(
    {
        "TcpExtListenOverflows",
        "TcpExtListenDrops",
        "TcpExtTCPBacklogDrop",
        "TcpExtTCPAbortOnData",
        "TcpExtTCPAbortOnClose",
        "TcpExtTCPAbortOnMemory",
        "TcpExtTCPAbortOnTimeout",
        "TcpExtTCPAbortOnLinger",
        "TcpExtTCPTimeouts",
        "TcpExtTCPRcvQDrop",
        "TcpExtTCPZeroWindowDrop",
        "TcpExtTCPReqQFullDrop",
        "TcpExtPFMemallocDrop",
        "TcpRetransSegs",
        "TcpOutRsts",
        "TcpInCsumErrors",
        "UdpNoPorts",
        "UdpRcvbufErrors",
        "UdpSndbufErrors",
        "UdpInCsumErrors",
        "UdpMemErrors",
    }
)
_FILES: Final = ("netstat", "snmp", "snmp6")


def parse_counters(text: str) -> dict[str, int]:
    """Parse netstat and snmp (pairs of lines: names, values) or snmp6 (a name and a value a line).

    Counters of IPv6 get the name of their IPv4 counterpart.
    """
    found: dict[str, int] = {}
    names: list[str] = []
    group = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit() and not words[0].endswith(":"):
            found[words[0].replace("Udp6", "Udp")] = int(words[1])
        elif words and words[0] == group and names:
            values = (int(each) if each.lstrip("-").isdigit() else 0 for each in words[1:])
            found |= {group[:-1] + name: value for name, value in zip(names, values, strict=False)}
            names = []
        elif words and words[0].endswith(":"):
            group, names = words[0], words[1:]
    return found


def read_counters() -> dict[str, int]:
    """Return `COUNTERS` of this network namespace; those that the kernel has."""
    total: dict[str, int] = {}
    for name in _FILES:
        try:
            text = Path("/proc/self/net", name).read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        for counter, value in parse_counters(text).items():
            if counter in COUNTERS:
                total[counter] = total.get(counter, 0) + value
    return total


class CounterDifference:
    """Counts from its creation on."""

    def __init__(self) -> None:
        self._before = read_counters()

    def read(self) -> dict[str, int]:
        """Return the counters that have grown, and by how much."""
        after = read_counters()
        return {
            name: after[name] - value for name, value in self._before.items() if after.get(name, 0) > value
        }
