"""Limits for a single client: which networks may connect, connections per address, and the read rate.

Pure: the caller reports what happens and passes the time in. A rejected connection is closed at once; a
client that sends too fast is read more slowly and loses nothing.

Addresses are those of the TCP or UDP peer, which the kernel reports. An address in a PROXY header arrives
only after accepting, and from a trusted proxy, so it is not checked here. Peers without an IP address (UNIX
sockets, vsock) always pass: access to a UNIX socket is controlled by the permissions of its file.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter

from bothends.endpoints import Address
from bothends.engines.base import Limits, Network
from bothends.events import Rejection, RejectReason


class AccessControl:
    """Decides whether an address may connect, under `limits.allow`, `.deny` and `.per_address`."""

    def __init__(self, limits: Limits) -> None:
        self._allow = limits.allow
        self._deny = limits.deny
        self._max_per_address = limits.per_address
        self._open_by_address: Counter[str] = Counter()
        self._network_rejection = functools.lru_cache(maxsize=4096)(self._check_networks)

    @property
    def is_needed(self) -> bool:
        """Whether any client is limited at all."""
        return bool(self._allow or self._deny) or self._max_per_address is not None

    def rejection(self, address: Address) -> Rejection | None:
        """Return why this address may not connect now, or None if it may."""
        if address.family not in ("inet", "inet6"):
            return None
        if (self._allow or self._deny) and (rejection := self._network_rejection(address.host)) is not None:
            return rejection
        if self._max_per_address is not None and self._open_by_address[address.host] >= self._max_per_address:
            reason = (
                f"{self._max_per_address} connections from its address are open, the limit for one address"
            )
            return Rejection(reason, RejectReason.ADDRESS)
        return None

    def add(self, address: Address) -> None:
        """Count a connection from this address."""
        if self._max_per_address is not None:
            self._open_by_address[address.host] += 1

    def remove(self, address: Address) -> None:
        """Stop counting a connection. An address without connections uses no memory."""
        if self._max_per_address is not None:
            self._open_by_address[address.host] -= 1
            if self._open_by_address[address.host] <= 0:
                del self._open_by_address[address.host]

    def _check_networks(self, host: str) -> Rejection | None:
        address = ipaddress.ip_address(host.partition("%")[0])
        for network in self._deny:
            if address in network:
                return Rejection(f"its network {network} is denied", RejectReason.NETWORK)
        if self._allow and not any(address in network for network in self._allow):
            return Rejection("its network is not among those allowed", RejectReason.NETWORK)
        return None


def parse_network(text: str) -> Network:
    """Parse `192.0.2.0/24`, `2001:db8::/32`, or one address. Raises ValueError as ipaddress.ip_network."""
    return ipaddress.ip_network(text, strict=False)


class TokenBucket:
    """Limits reads to `rate` bytes a second, with bursts of up to one second's worth.

    While reading is paused, the peer's data waits in the kernel's buffers; once they are full, the peer's
    sends block.
    """

    __slots__ = ("_tokens", "_updated_at", "rate")

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate)
        self._updated_at = now

    def consume(self, size: int, now: float) -> float:
        """Count `size` bytes as read. Returns the seconds to pause before the next read, 0 for none."""
        self._tokens = min(self.rate, self._tokens + (now - self._updated_at) * self.rate) - size
        self._updated_at = now
        return max(0.0, -self._tokens / self.rate)

    def is_full(self, now: float) -> bool:
        """Whether the peer has been below the rate for long enough to refill the bucket."""
        return self._tokens + (now - self._updated_at) * self.rate >= self.rate
