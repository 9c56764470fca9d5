"""What an endpoint can name and these sockets do not open yet: the one place that says so."""

from __future__ import annotations

from bothends.endpoints import Endpoint
from bothends.errors import Unavailable


def refuse_layers(doing: str, endpoint: Endpoint) -> None:
    """Refuse tls://, systemd:// and wrappers, which can be written but not opened yet. Raises Unavailable."""
    for name in (*endpoint.wrappers, endpoint.scheme):
        if name in ("tls", "systemd", "proxyprotocol"):
            raise Unavailable(doing, endpoint.label, reason=f"{name} is not carried yet")
