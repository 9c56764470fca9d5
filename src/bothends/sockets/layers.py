"""What an endpoint can name and these sockets do not open yet: the one place that says so.

TLS and the PROXY header are carried inside of a plain stream, which is what is opened for them here: whoever
welcomes or connects puts the layers on it (`bothends.layers`, `bothends.client`).
"""

from __future__ import annotations

from bothends.endpoints import Endpoint
from bothends.errors import Unavailable


def check_openable(doing: str, endpoint: Endpoint) -> None:
    """Refuse connecting to systemd://, which can be written but not opened.

    Raises Unavailable.
    """
    if doing != "listen on" and endpoint.scheme == "systemd":
        raise Unavailable(doing, endpoint.label, reason="systemd is not carried yet")
