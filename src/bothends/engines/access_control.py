"""Who may come in, by address: allowed and denied networks, and how many from one address.

Pure: it is told who comes and goes, and answers. What is looked at is the address that a connection
comes from, which the kernel vouches for; what a PROXY header says is learned later, and from a proxy
that is trusted. Peers without an Internet address (UNIX sockets, vsock) pass: the file's mode is
their gate.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter

from bothends.endpoints import Address
from bothends.engines.base import Limits, Network
from bothends.events import Refusal, Why


class Gate:
    """Answers whether an address may come in, under `limits.allow`, `.deny` and `.per_address`."""

    def __init__(self, limits: Limits) -> None:
        self._allow = limits.allow
        self._deny = limits.deny
        self._most = limits.per_address
        self._inside: Counter[str] = Counter()
        self._refusal_by_network = functools.lru_cache(maxsize=4096)(self._look_up)

    def refusal(self, address: Address) -> Refusal | None:
        """Why this address may not come in now; None if it may."""
        if address.family not in ("inet", "inet6"):
            return None
        if (self._allow or self._deny) and (refusal := self._refusal_by_network(address.host)) is not None:
            return refusal
        if self._most is not None and self._inside[address.host] >= self._most:
            reason = f"{self._most} connections from its address are open, the limit for one"
            return Refusal(reason, Why.ADDRESS)
        return None

    def enter(self, address: Address) -> None:
        """It has come in."""
        if self._most is not None:
            self._inside[address.host] += 1

    def leave(self, address: Address) -> None:
        """It has gone. Who has nobody inside takes no room here."""
        if self._most is not None:
            self._inside[address.host] -= 1
            if self._inside[address.host] <= 0:
                del self._inside[address.host]

    def _look_up(self, host: str) -> Refusal | None:
        address = ipaddress.ip_address(host.partition("%")[0])
        for network in self._deny:
            if address in network:
                return Refusal(f"its network {network} is denied", Why.NETWORK)
        if self._allow and not any(address in network for network in self._allow):
            return Refusal("its network is not among those allowed", Why.NETWORK)
        return None


def parse_network(text: str) -> Network:
    """`192.0.2.0/24`, `2001:db8::/32`, or one address. Raises ValueError as ipaddress.ip_network."""
    return ipaddress.ip_network(text, strict=False)
