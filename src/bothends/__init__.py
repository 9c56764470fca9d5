"""Both ends of the socket: run client-server programs, watch, break, measure and judge them.

The few names to begin with. `serve` and `connect` are the two ends; `message`, `stream` and
`datagram` make a service of a function; an `Endpoint` says where to talk.

Each is imported when it is first used (PEP 562): `bothends --help` must not wait for event loops.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bothends.client.blocking import connect
    from bothends.endpoints import Endpoint
    from bothends.server import serve
    from bothends.services.functions import datagram, message, stream

__all__ = ["Endpoint", "connect", "datagram", "message", "serve", "stream"]


def __getattr__(name: str) -> Any:
    homes = {
        "connect": "bothends.client.blocking",
        "Endpoint": "bothends.endpoints",
        "serve": "bothends.server",
        "datagram": "bothends.services.functions",
        "message": "bothends.services.functions",
        "stream": "bothends.services.functions",
    }
    if name not in homes:
        raise AttributeError(f"module 'bothends' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(homes[name]), name)
