"""Layers between a connection and its service: TLS and the PROXY protocol. Sans-IO.

A layer is a conversation around the service's conversation, so engines need no support for it: they move
bytes, and the layer decodes them for the service and encodes its output. TLS (`tls`) and the PROXY header
(`proxy_protocol`) can be nested, with the header outside.

Rank 1: imports `endpoints`, `errors`, `escaping` and the interface of a conversation (`services/base.py`).
"""

from bothends.layers.certificates import TlsSettings, self_signed, server_context
from bothends.layers.factory import opener_for, trusted_networks
from bothends.layers.proxy_protocol import LOOPBACK_NETWORKS, ProxyLayer, encode_header
from bothends.layers.tls import TlsLayer

__all__ = [
    "LOOPBACK_NETWORKS",
    "ProxyLayer",
    "TlsLayer",
    "TlsSettings",
    "encode_header",
    "opener_for",
    "self_signed",
    "server_context",
    "trusted_networks",
]
