"""A toxic put somewhere: its name there, the direction, whom it meets, and its seed."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from bothends.toxics.base import LinkContext, Medium, Toxic

Direction: TypeAlias = Literal["upstream", "downstream"]
"""From the client to the server, and from the server to the client: Toxiproxy's words."""

DIRECTIONS: tuple[Direction, ...] = ("upstream", "downstream")

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PlacedToxic:
    """A toxic of a proxy or a wire.

    `toxicity` is the share of connections that it meets, 0 to 1; `clients` are the networks of those that it
    meets, none meaning all.
    """

    name: str
    direction: Direction
    toxic: Toxic
    toxicity: float = 1.0
    clients: tuple[IpNetwork, ...] = ()

    def applies_to(self, client: str, random: Random) -> bool:
        """Whether a connection from this address (text, "" where it has none) is one of its share."""
        # Drawn in any case: the address must not shift what is drawn afterwards.
        chosen = random.random() < self.toxicity
        return chosen and (not self.clients or _is_within(client, self.clients))

    def link_context(self, medium: Medium, random: Random, ordinal: int) -> LinkContext:
        """What its behaviour is told of a connection."""
        return LinkContext(medium, random, ordinal)


def random_for(seed: int, *key: object) -> Random:
    """The random numbers of one place, which nobody else draws from: a toxic, a direction, a connection.

    The same seed and place give the same numbers on every machine: a text seeds by its SHA-512.
    """
    return Random("/".join(map(str, (seed, *key))))


def _is_within(client: str, networks: tuple[IpNetwork, ...]) -> bool:
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:  # a UNIX socket
        return False
    return any(address in network for network in networks)
