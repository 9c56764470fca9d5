"""The least that a server in Python does on epoll: no limits, errors or states, and replies that always fit.

Run by benchmarks/loops.py: what an engine takes beside it is bookkeeping, and the rest is that of the kernel
and of Python. A conversation is a call of a method, as in the service upper.
"""

import select
import socket


class Upper:
    """One connection: its conversation, and its handler."""

    __slots__ = ("connection", "partial")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.partial = b""

    def receive(self, data: bytes) -> bytes:
        """Return the answer."""
        if not self.partial and data.isascii():
            return data.upper()
        raise NotImplementedError

    def on_ready(self) -> None:
        """Answer a chunk, or close at EOF."""
        data = self.connection.recv(65536)
        if data:
            self.connection.send(self.receive(data), socket.MSG_NOSIGNAL)
        else:
            epoll.unregister(self.connection)
            del handlers[self.connection.fileno()]
            self.connection.close()


def accept() -> None:
    """Accept all connections that wait."""
    try:
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            handlers[connection.fileno()] = Upper(connection).on_ready
            epoll.register(connection, select.EPOLLIN)
    except BlockingIOError:
        pass


listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
listener.setblocking(False)
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
handlers = {listener.fileno(): accept}
print(f"tcp://127.0.0.1:{listener.getsockname()[1]}", flush=True)
while True:
    for descriptor, _ in epoll.poll():
        if (handler := handlers.get(descriptor)) is not None:
            handler()
