"""Select the layers between the connections of a listener and the service."""

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
    """The part of a listener that is used here."""

    @property
    def requested_endpoint(self) -> Endpoint:
        """The endpoint as the caller gave it."""


def opener_for(
    open_service: ConversationFactory, listeners: Iterable[HasEndpoint], tls: TlsLayer | None = None
) -> Callable[[HasEndpoint, Peer, Push], Conversation] | None:
    """Return a factory of conversations with the peers of these listeners: `EngineContext.opener`.

    The PROXY header is outside, TLS inside. `open_service` is called for each conversation, so it may open a
    different service each time. Returns None if no listener has a layer.

    Raises UsageError for tls:// without `tls`.
    """
    factories = {
        each.requested_endpoint: _add_layers(open_service, each.requested_endpoint, tls) for each in listeners
    }
    if all(each is open_service for each in factories.values()):
        return None

    def open_for(listener: HasEndpoint, peer: Peer, push: Push) -> Conversation:
        return factories[listener.requested_endpoint](peer, push)

    return open_for


def _add_layers(
    open_service: ConversationFactory, endpoint: Endpoint, tls: TlsLayer | None
) -> ConversationFactory:
    factory = open_service
    if endpoint.scheme == "tls":
        if tls is None:
            raise UsageError(f"{endpoint} needs a certificate: give one, or use a self-signed one")
        factory = tls.wrap(factory)
    if "proxyprotocol" in endpoint.wrappers:
        factory = ProxyLayer(trusted_networks(endpoint)).wrap(factory)
    return factory


def trusted_networks(endpoint: Endpoint) -> tuple[Network, ...]:
    """Return the networks whose PROXY headers an endpoint trusts: its option `trust`, default loopback."""
    trust = endpoint.word("trust")
    if trust is None:
        return LOOPBACK_NETWORKS
    return tuple(ipaddress.ip_network(each) for each in trust.split(","))
