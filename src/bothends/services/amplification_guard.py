"""Keep a datagram service from being used to attack other hosts.

The source address of a datagram can be forged (BCP 38). So a service that answers any datagram can be made to
send to a host that has requested nothing. Two attacks follow:

1. A loop: the forged source is another service that answers any datagram, and the two answer each other until
   one is stopped (CERT CA-1996-01; CVE-2024-2169). So the ports of those services get no answer, nor does
   port 0, which cannot receive one.
2. A flood: so each host gets `rate` answers per second on average, and up to ten seconds' worth at once.

The table of hosts is bounded. A host is removed once it has been silent long enough for a full bucket, so
removing it changes nothing for it. While the table is full of other hosts, all new hosts share one bucket:
thousands of forged sources must not get a full bucket each, nor evict the victim. An IPv6 host is its /64
network, the smallest that a site gets.

Pure: the clock is passed in. Only IP addresses are checked, because UNIX socket addresses cannot be forged.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from bothends.endpoints import Address
from bothends.events import Rejection, RejectReason

REFLECTOR_PORTS: Final = {
    7: "echo, RFC 862",
    11: "systat, RFC 866",
    13: "daytime, RFC 867",
    17: "qotd, RFC 865",
    19: "chargen, RFC 864",
    37: "time, RFC 868",
}
"""Ports of services that, according to their RFC, answer any datagram. DNS, NTP and the like are not among
them, because they answer requests only, and no answer of these services is one. The rate limits others."""

BURST_SECONDS: Final = 10.0
"""Seconds of unused rate that a host accumulates: enough for a test run, too little for a flood."""

MAX_HOSTS: Final = 4096
"""Maximum size of the table of hosts: about 1 MB."""

_PORT_REASONS: Final = {
    0: "from port 0, which cannot receive an answer",
    **{
        port: f"from port {port} ({name}), which answers any datagram: the two would loop"
        for port, name in REFLECTOR_PORTS.items()
    },
}


class AmplificationGuard:
    """Decides which datagrams are answered.

    Args:
        rate: answers per second and host.
        now: a monotonic clock, in seconds.
        burst_seconds: seconds of unused rate that a host accumulates.
        max_hosts: maximum size of the table of hosts.
    """

    def __init__(
        self,
        rate: float,
        *,
        now: Callable[[], float] = time.monotonic,
        burst_seconds: float = BURST_SECONDS,
        max_hosts: int = MAX_HOSTS,
    ) -> None:
        self._now = now
        self._rate = rate
        self._burst = max(1.0, rate * burst_seconds)
        self._max_hosts = max_hosts
        # The host that has been silent longest comes first.
        self._buckets: OrderedDict[str | int, _HostBucket] = OrderedDict()
        self._overflow_bucket = _HostBucket(self._burst, now())
        self._over_rate = Rejection(f"more than {rate:g} answers a second to this host", RejectReason.RATE)

    def check(self, peer: Address) -> Rejection | None:
        """Return why a datagram of `peer` must not be answered, or None and take a token from its bucket."""
        if peer.family not in ("inet", "inet6"):
            return None
        if peer.port in _PORT_REASONS:
            return Rejection(_PORT_REASONS[peer.port], RejectReason.SOURCE)
        host = peer.host if peer.family == "inet" else int(IPv6Address(peer.host)) >> 64
        now = self._now()
        if self._bucket(host, now).take(now, self._rate, self._burst):
            return None
        return self._over_rate

    def _bucket(self, host: str | int, now: float) -> _HostBucket:
        bucket = self._buckets.get(host)
        if bucket is not None:
            self._buckets.move_to_end(host)
            return bucket
        if len(self._buckets) >= self._max_hosts:
            if not next(iter(self._buckets.values())).is_full(now, self._rate, self._burst):
                return self._overflow_bucket
            self._buckets.popitem(last=False)
        bucket = self._buckets[host] = _HostBucket(self._burst, now)
        return bucket


class _HostBucket:
    """The token bucket of a host: it had `tokens` at the time `updated_at`."""

    __slots__ = ("tokens", "updated_at")

    def __init__(self, tokens: float, updated_at: float) -> None:
        self.tokens = tokens
        self.updated_at = updated_at

    def is_full(self, now: float, rate: float, burst: float) -> bool:
        return self.tokens + (now - self.updated_at) * rate >= burst

    def take(self, now: float, rate: float, burst: float) -> bool:
        left = min(burst, self.tokens + (now - self.updated_at) * rate)
        self.updated_at = now
        self.tokens = left - 1 if left >= 1 else left
        return left >= 1
