"""Both ends of the socket: run client-server programs, watch, break, measure and judge them.

`serve` and `connect` are the two ends. `message`, `stream` and `datagram` make a service of a function; a
`Conversation` class has state. An `Endpoint` is an address as a URL. `serve` also takes `Limits`,
`TlsSettings` and an `Observer`; `connect` takes `TlsOptions`. The module `errors` has the errors that are
raised, `events` the events that an observer gets.

docs/reference/api.md documents the public modules. All other modules are internal and may change.

Names are imported when first used (PEP 562), because `bothends --help` must not wait for event loops; nor for
`typing`, whose import takes longer than the rest, and ^C would print a traceback in that time.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for typing's
if TYPE_CHECKING:
    from typing import Any

    from bothends import errors, events
    from bothends.client.blocking import connect
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import Endpoint
    from bothends.engines.base import Limits
    from bothends.errors import BothendsError
    from bothends.events import Event, Observer, ProblemsOnly
    from bothends.layers import TlsSettings
    from bothends.server import Server, serve
    from bothends.services.base import Conversation, Peer, Service
    from bothends.services.functions import datagram, message, stream

__all__ = [
    "BothendsError",
    "Conversation",
    "Endpoint",
    "Event",
    "Limits",
    "Observer",
    "Peer",
    "ProblemsOnly",
    "Server",
    "Service",
    "TlsOptions",
    "TlsSettings",
    "connect",
    "datagram",
    "errors",
    "events",
    "message",
    "serve",
    "stream",
]

# Name -> the module that defines it; a module of that name where it stands for itself.
_DEFINED_IN = {
    "BothendsError": "bothends.errors",
    "Conversation": "bothends.services.base",
    "Endpoint": "bothends.endpoints",
    "Event": "bothends.events",
    "Limits": "bothends.engines.base",
    "Observer": "bothends.events",
    "Peer": "bothends.services.base",
    "ProblemsOnly": "bothends.events",
    "Server": "bothends.server",
    "Service": "bothends.services.base",
    "TlsOptions": "bothends.client.tls",
    "TlsSettings": "bothends.layers",
    "connect": "bothends.client.blocking",
    "datagram": "bothends.services.functions",
    "errors": "bothends.errors",
    "events": "bothends.events",
    "message": "bothends.services.functions",
    "serve": "bothends.server",
    "stream": "bothends.services.functions",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'bothends' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_DEFINED_IN[name])
    return module if module.__name__ == f"bothends.{name}" else getattr(module, name)
