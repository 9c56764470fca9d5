"""Servers that are bent on purpose, each in one way, in threads that end with their context."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from bothends.endpoints import Endpoint

Handler = Callable[[socket.socket], None]
Answer = Callable[[int, bytes], list[bytes]]


@contextlib.contextmanager
def stream_server(handler: Handler) -> Iterator[Endpoint]:
    """Calls `talk` for each connection, in a thread of its own, and closes it after."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_ones: list[socket.socket] = []

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                handler(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    open_ones.append(connection)
                    threads.append(threading.Thread(target=one, args=[connection]))
                    threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join()
            for connection in open_ones:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads[1:]:
                thread.join()


@contextlib.contextmanager
def datagram_server(answer: Answer) -> Iterator[Endpoint]:
    """Sends what `answer` gives for each datagram (its place in the order of arrival, from 0, and itself)."""
    stop = os.urandom(16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            count = 0
            while True:
                data, peer = sock.recvfrom(65536)
                if data == stop:
                    return
                for each in answer(count, data):
                    sock.sendto(each, peer)
                count += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("udp", host="127.0.0.1", port=sock.getsockname()[1])
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
                ours.sendto(stop, sock.getsockname())
            thread.join()


def lines(connection: socket.socket) -> Iterator[bytes]:
    """The lines that a client sends, each with its end."""
    kept = b""
    while data := connection.recv(65536):
        *whole, kept = (kept + data).split(b"\n")
        for line in whole:
            yield line + b"\n"


def reset(connection: socket.socket) -> None:
    """Close with RST: a linger of no time throws away what was not sent (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
