"""A server for one connection, in a thread of the test."""

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
    """Accepts one connection and does with it what the script says; the port. What the script raises is
    raised at the end, except where the client broke the connection or the handshake off."""
    problems: list[BaseException] = []

    def work(listener: socket.socket) -> None:
        try:
            conn, _ = listener.accept()
            with conn:
                conn.settimeout(TIMEOUT)
                handler(conn)
        except (ConnectionError, ssl.SSLError):
            pass
        except BaseException as error:
            problems.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=work, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if problems:
        raise problems[0]
