"""Servers with deliberate faults, in threads that end with their context managers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from bothends.endpoints import Endpoint

Handler = Callable[[socket.socket], None]
Responder = Callable[[int, bytes], list[bytes]]


@contextlib.contextmanager
def stream_server(handler: Handler) -> Iterator[Endpoint]:
    """Run `handler` for each connection in a thread, and close the connection afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                handler(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    threads.append(threading.Thread(target=serve, args=[connection]))
                    threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join()
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads[1:]:
                thread.join()


@contextlib.contextmanager
def datagram_server(respond: Responder) -> Iterator[Endpoint]:
    """Send the datagrams that `respond` returns for each datagram (its index from 0, and its data)."""
    stop = os.urandom(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            count = 0
            while True:
                data, peer = sock.recvfrom(65536)
                if data == stop:
                    return
                for each in respond(count, data):
                    sock.sendto(each, peer)
                count += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("udp", host="127.0.0.1", port=sock.getsockname()[1])
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(stop, sock.getsockname())
            thread.join()


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Yield the lines that a client sends, with their line ends."""
    partial = b""
    while data := connection.recv(65536):
        *complete, partial = (partial + data).split(b"\n")
        for line in complete:
            yield line + b"\n"


def reset(connection: socket.socket) -> None:
    """Close with RST: a linger time of zero discards unsent data (socket(7), SO_LINGER)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
