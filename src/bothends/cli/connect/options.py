"""The options of `bothends connect` that its modes share: prompt, pipe, single request, listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bothends.events import Observer

DATAGRAM_TIMEOUT: Final = 2.0  # seconds for the reply to one datagram, retries included


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to use a connection. The fields are the options of `bothends connect`.

    Times are in seconds; None means no limit. `observe` is called with every event of the connection.
    """

    messages: tuple[str, ...] = ()
    newline: bool = True
    crlf: bool = False
    half_close: bool = True
    hex_dump: bool = False
    timeout: float | None = None
    quit_after: float | None = None
    retries: int = 2
    verbose: bool = False
    observe: Observer | None = None

    @property
    def datagram_timeout(self) -> float:
        """Timeout in seconds for the reply to one datagram."""
        return self.timeout or DATAGRAM_TIMEOUT

    def line_end(self, *, message_oriented: bool) -> bytes:
        """Return the end of a sent line: CR LF with --crlf, else LF on a stream, and nothing on messages."""
        if self.crlf:
            return b"\r\n"
        return b"" if message_oriented else b"\n"
