"""From listeners to openers: which layers stand between a connection and its service."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Protocol

from bothends.endpoints import Endpoint
from bothends.errors import CallerError
from bothends.layers.base import Open
from bothends.layers.proxy_protocol import LOOPBACK, Network, ProxyLayer
from bothends.layers.tls import TlsLayer
from bothends.services.base import Conversation, Peer, Post


class Entrance(Protocol):
    """What is needed to know of a listener."""

    @property
    def asked(self) -> Endpoint:
        """The endpoint as it was given."""


def opener_for(
    open_service: Open, listeners: Iterable[Entrance], tls: TlsLayer | None = None
) -> Callable[[Entrance, Peer, Post], Conversation] | None:
    """What opens a conversation with a peer that came in by one of these listeners: `Job.opener`.

    PROXY stands outside, TLS inside. `open_service` is called anew for each conversation, so it may lead
    to another service from one call to the next. None where no listener has anything in between.

    Raises CallerError for tls:// without `tls`.
    """
    wrapped = {each.asked: _wrapped(open_service, each.asked, tls) for each in listeners}
    if all(each is open_service for each in wrapped.values()):
        return None

    def open_for(listener: Entrance, peer: Peer, post: Post) -> Conversation:
        return wrapped[listener.asked](peer, post)

    return open_for


def _wrapped(open_service: Open, endpoint: Endpoint, tls: TlsLayer | None) -> Open:
    opened = open_service
    if endpoint.scheme == "tls":
        if tls is None:
            raise CallerError(f"{endpoint} shows a certificate: give one, or ask for a self-signed one")
        opened = tls.wrap(opened)
    if "proxyprotocol" in endpoint.wrappers:
        opened = ProxyLayer(trusted_by(endpoint)).wrap(opened)
    return opened


def trusted_by(endpoint: Endpoint) -> tuple[Network, ...]:
    """Whose PROXY header an endpoint believes: its option `trust`, by default this machine's."""
    written = endpoint.word("trust")
    if written is None:
        return LOOPBACK
    return tuple(ipaddress.ip_network(each) for each in written.split(","))
