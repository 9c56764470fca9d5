"""A server for one connection, in a thread."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

ConnectionHandler: TypeAlias = Callable[[socket.socket], object]

TIMEOUT = 20.0


@contextmanager
def serve_one(handler: ConnectionHandler) -> Iterator[int]:
    """Context: accept one connection and pass it to `handler`. Yields the port.

    An exception of the handler is raised on exit, except if the client broke the connection or the handshake.
    """
    errors: list[BaseException] = []

    def serve(listener: socket.socket) -> None:
        try:
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(TIMEOUT)
                handler(conn)
        except (ConnectionError, ssl.SSLError):
            pass
        except BaseException as error:
            errors.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
