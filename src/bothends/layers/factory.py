"""From listeners to openers: which layers stand between a connection and its service."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Protocol

from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.layers.base import ConversationFactory
from bothends.layers.proxy_protocol import LOOPBACK_NETWORKS, Network, ProxyLayer
from bothends.layers.tls import TlsLayer
from bothends.services.base import Conversation, Peer, Push


class HasEndpoint(Protocol):
    """What is needed to know of a listener."""

    @property
    def requested_endpoint(self) -> Endpoint:
        """The endpoint as it was given."""


def opener_for(
    open_service: ConversationFactory, listeners: Iterable[HasEndpoint], tls: TlsLayer | None = None
) -> Callable[[HasEndpoint, Peer, Push], Conversation] | None:
    """What opens a conversation with a peer that came in by one of these listeners: `EngineContext.opener`.

    PROXY stands outside, TLS inside. `open_service` is called anew for each conversation, so it may lead
    to another service from one call to the next. None where no listener has anything in between.

    Raises CallerError for tls:// without `tls`.
    """
    wrapped = {
        each.requested_endpoint: _add_layers(open_service, each.requested_endpoint, tls) for each in listeners
    }
    if all(each is open_service for each in wrapped.values()):
        return None

    def open_for(listener: HasEndpoint, peer: Peer, post: Push) -> Conversation:
        return wrapped[listener.requested_endpoint](peer, post)

    return open_for


def _add_layers(
    open_service: ConversationFactory, endpoint: Endpoint, tls: TlsLayer | None
) -> ConversationFactory:
    opened = open_service
    if endpoint.scheme == "tls":
        if tls is None:
            raise UsageError(f"{endpoint} shows a certificate: give one, or ask for a self-signed one")
        opened = tls.wrap(opened)
    if "proxyprotocol" in endpoint.wrappers:
        opened = ProxyLayer(trusted_networks(endpoint)).wrap(opened)
    return opened


def trusted_networks(endpoint: Endpoint) -> tuple[Network, ...]:
    """Whose PROXY header an endpoint believes: its option `trust`, by default this machine's."""
    written = endpoint.word("trust")
    if written is None:
        return LOOPBACK_NETWORKS
    return tuple(ipaddress.ip_network(each) for each in written.split(","))
