"""Guard: keeps a datagram service from being turned against others.

The source address of a datagram is whatever its sender wrote there (BCP 38). A service that answers
anything can therefore be made to send to a host that asked for nothing. Two harms come of it:

1. A loop: the forged source is another service that answers anything, and the two answer each other
   until one is stopped (CERT CA-1996-01; CVE-2024-2169). So nothing is answered to the ports of those
   services, nor to port 0, where nobody can be.
2. A flood: so each host is granted `rate` answers a second on average, ten seconds' worth at once.

The table of hosts is bounded. A host is forgotten when it has been silent for long enough to have its
full grant again, so forgetting changes nothing for it. While the table is full of hosts that are
not, all newcomers share one grant: forging thousands of sources must not buy a fresh grant for each,
nor make the table forget the victim. An IPv6 host is its /64 network, the least that one site has.

Pure: the clock is passed in. Only IP sources are looked at: on UNIX sockets they can't be forged.
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
"""Ports of the services that by their RFC answer any datagram at all. DNS, NTP and the like aren't
among them: they answer questions, and no answer of ours is one. Whatever else answers meets the rate."""

BURST_SECONDS: Final = 10.0
"""Seconds' worth of answers that a silent host saves up: a test run passes, a flood doesn't last."""

MAX_HOSTS: Final = 4096
"""Most hosts known at once: about 1 MB."""

_PORT_REASONS: Final = {
    0: "from port 0, where nobody can be answered",
    **{
        port: f"from port {port} ({name}), which answers anything: the two would never stop"
        for port, name in REFLECTOR_PORTS.items()
    },
}


class AmplificationGuard:
    """Says which datagrams are not to be answered.

    `rate` is in answers per second and host, `now` a clock in seconds that never goes back.
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
        self._buckets: OrderedDict[str | int, _HostBucket] = (
            OrderedDict()
        )  # who was silent longest comes first
        self._overflow_bucket = _HostBucket(self._burst, now())
        self._over_rate = Rejection(f"more than {rate:g} answers a second to this host", RejectReason.RATE)

    def check(self, peer: Address) -> Rejection | None:
        """Why a datagram from `peer` is not to be answered; None takes one answer off its grant."""
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
    """What a host may still be answered: it had `left` at the time `at`."""

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
