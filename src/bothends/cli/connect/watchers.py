"""Watchers of a connection's traffic: they emit events, or print a hex dump."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from bothends.errors import ConnectionLost
from bothends.events import Closed, CloseReason, PeerEof, Received, Sent, WriteShutdown
from bothends.hexdump import ByteDirection, HexDump

if TYPE_CHECKING:
    from bothends.client._core import BaseConnection
    from bothends.client.blocking import Connection
    from bothends.events import Observer

# Style of each direction in a hex dump, on a terminal with colour.
_STYLES: Final[dict[ByteDirection, str]] = {"sent": "quiet", "received": ""}

TrafficWatcher: TypeAlias = Callable[[ByteDirection, bytes], None]  # see `client._core`


class EventBridge:
    """Context manager that emits an event for each transfer on a connection, and `Closed` on exit.

    Args:
        connection: the connection to watch.
        observe: called with each event.
        number: the connection's number in the events.
    """

    def __init__(self, connection: Connection, observe: Observer, number: int) -> None:
        self._connection = connection
        self._observe = observe
        self._number = number
        self._byte_counts = {"sent": 0, "received": 0}

    def __enter__(self) -> None:
        add_watcher(self._connection, self._on_data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        was_lost = kind is not None and issubclass(kind, ConnectionLost)
        cause = CloseReason.RESET if was_lost else CloseReason.PEER
        received, sent = self._byte_counts["received"], self._byte_counts["sent"]
        self._observe(Closed(self._number, self._connection.peer, cause, received, sent))

    def _on_data(self, direction: ByteDirection, data: bytes) -> None:
        self._byte_counts[direction] += len(data)
        peer, is_end = self._connection.peer, not data and not self._connection.core.datagrams
        if is_end:
            self._observe((PeerEof if direction == "received" else WriteShutdown)(self._number, peer))
        else:
            self._observe((Received if direction == "received" else Sent)(self._number, peer, data))


def add_watcher(connection: BaseConnection, watcher: TrafficWatcher) -> None:
    """Add a watcher to a connection, after those it has."""
    previous = connection.core.watcher

    def both(direction: ByteDirection, data: bytes) -> None:
        if previous is not None:
            previous(direction, data)
        watcher(direction, data)

    connection.core.watcher = both


def hex_dump_watcher(write_line: Callable[[str, str], None], *, message_oriented: bool) -> TrafficWatcher:
    """Return a watcher that calls `write_line` with each line of a hex dump, and the line's style."""
    dump = HexDump(message_oriented=message_oriented)

    def watch(direction: ByteDirection, data: bytes) -> None:
        for line in dump.lines(direction, data):
            write_line(line, _STYLES[direction])

    return watch
