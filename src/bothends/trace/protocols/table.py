"""The recognisers, one line each: `said` asks them in turn. Pure.

A recogniser is conservative: bytes that another protocol may have sent are not named. It sees the first bytes
of one call or packet only, so what continues an earlier one is not named, either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, NamedTuple

from bothends.trace.protocols import dns, http1, resp, smtp, tls


class Recogniser(NamedTuple):
    """A protocol: what its bytes say. `is_text`: a row that shows the bytes says it already."""

    recognise: Callable[[bytes, int], str]  # of the first bytes, and how many there are
    is_text: bool


PROTOCOLS: Final = {
    "HTTP/1": Recogniser(http1.recognise, is_text=True),
    "TLS": Recogniser(tls.recognise, is_text=False),
    "RESP": Recogniser(resp.recognise, is_text=False),
    "SMTP": Recogniser(smtp.recognise, is_text=True),
    "DNS": Recogniser(dns.recognise, is_text=False),
}
_SHORTEST: Final = 4  # bytes


class Said(NamedTuple):
    """What bytes say; "" if they are not recognised. `is_text`: a row that shows them says it already."""

    text: str = ""
    is_text: bool = True


_NOTHING: Final = Said()


def said(data: bytes, size: int) -> Said:
    """Return what bytes say. `size` is how many there were; `data` are the first of them."""
    return _said(data, size) if len(data) >= _SHORTEST else _NOTHING


# The same bytes are shown when they are sent, in a packet, and when they are received.
@functools.lru_cache(maxsize=1024)
def _said(data: bytes, size: int) -> Said:
    for each in PROTOCOLS.values():
        if text := each.recognise(data, size):
            return Said(text, each.is_text)
    return _NOTHING
