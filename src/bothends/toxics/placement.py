"""A toxic's placement on a proxy or wire: name, direction, affected connections, and random seed."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from bothends.toxics.base import LinkContext, Medium, Toxic

Direction: TypeAlias = Literal["upstream", "downstream"]
"""Toxiproxy's terms: client to server, and server to client."""

DIRECTIONS: tuple[Direction, ...] = ("upstream", "downstream")

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PlacedToxic:
    """A toxic of a proxy or a wire.

    `toxicity` is the share of connections it applies to, from 0 to 1. `clients` restricts it to connections
    from these networks; empty means all.
    """

    name: str
    direction: Direction
    toxic: Toxic
    toxicity: float = 1.0
    clients: tuple[IpNetwork, ...] = ()

    def applies_to(self, client: str, random: Random) -> bool:
        """Decide whether the toxic applies to a connection from this address ("" if it has none)."""
        # Always drawn, because the numbers drawn later must not depend on the address.
        chosen = random.random() < self.toxicity
        return chosen and (not self.clients or _is_within(client, self.clients))

    def link_context(self, medium: Medium, random: Random, ordinal: int) -> LinkContext:
        """Build the context for the toxic's state on one connection."""
        return LinkContext(medium, random, ordinal)


def random_for(seed: int, *key: object) -> Random:
    """Return a random generator of its own for a key, such as toxic, direction and connection number.

    The same seed and key give the same numbers on every machine: Random hashes a string with SHA-512.
    """
    return Random("/".join(map(str, (seed, *key))))


def _is_within(client: str, networks: tuple[IpNetwork, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:  # a UNIX socket
        return False
    return any(address in network for network in networks)
