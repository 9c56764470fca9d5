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
from bothends.events import Rejection, RejectReason


class AccessControl:
    """Answers whether an address may come in, under `limits.allow`, `.deny` and `.per_address`."""

    def __init__(self, limits: Limits) -> None:
        self._allow = limits.allow
        self._deny = limits.deny
        self._max_per_address = limits.per_address
        self._open_by_address: Counter[str] = Counter()
        self._network_rejection = functools.lru_cache(maxsize=4096)(self._check_networks)

    def rejection(self, address: Address) -> Rejection | None:
        """Why this address may not come in now; None if it may."""
        if address.family not in ("inet", "inet6"):
            return None
        if (self._allow or self._deny) and (refusal := self._network_rejection(address.host)) is not None:
            return refusal
        if self._max_per_address is not None and self._open_by_address[address.host] >= self._max_per_address:
            reason = f"{self._max_per_address} connections from its address are open, the limit for one"
            return Rejection(reason, RejectReason.ADDRESS)
        return None

    def add(self, address: Address) -> None:
        """It has come in."""
        if self._max_per_address is not None:
            self._open_by_address[address.host] += 1

    def remove(self, address: Address) -> None:
        """It has gone. Who has nobody inside takes no room here."""
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
    """`192.0.2.0/24`, `2001:db8::/32`, or one address. Raises ValueError as ipaddress.ip_network."""
    return ipaddress.ip_network(text, strict=False)
