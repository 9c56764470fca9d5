"""Small servers for tests of clients, each on a real socket and in a separate thread."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bothends.endpoints import Endpoint

TIMEOUT = 20.0  # longer than any of these tests takes; only a failing test waits this long

ConnectionHandler = Callable[[socket.socket], None]


@contextmanager
def tcp_peer(handler: ConnectionHandler, *, connections: int = 1) -> Iterator[Endpoint]:
    """Context: a TCP server that accepts this number of connections, one after another."""
    listener = socket.create_server(("127.0.0.1", 0))
    with serve_connections(listener, handler, connections):
        yield Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])


@contextmanager
def tcp_peer_held_open(handler: ConnectionHandler) -> Iterator[Endpoint]:
    """As `tcp_peer`, but the connection stays open until the context exits."""
    stop = threading.Event()

    def handle_and_hold(connection: socket.socket) -> None:
        handler(connection)
        stop.wait(TIMEOUT)

    with tcp_peer(handle_and_hold) as endpoint:
        try:
            yield endpoint
        finally:
            stop.set()


@contextmanager
def seqpacket_peer(handler: ConnectionHandler, path: Path) -> Iterator[Endpoint]:
    """As `tcp_peer`, for one connection with sequenced packets."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    with serve_connections(listener, handler, 1):
        yield Endpoint("unix+seqpacket", path=str(path))


@contextmanager
def serve_connections(
    listener: socket.socket, handler: ConnectionHandler, connections: int
) -> Iterator[None]:
    """Context: serve a listener in a thread, whose exceptions fail the test."""
    errors: list[BaseException] = []
    listener.settimeout(TIMEOUT)

    def serve() -> None:
        try:
            for _ in range(connections):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(TIMEOUT)
                    handler(connection)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the server thread is still running"
        assert not errors, errors
    finally:
        listener.close()


DatagramHandler = Callable[[bytes], list[bytes]]


@contextmanager
def udp_peer(handler: DatagramHandler) -> Iterator[Endpoint]:
    """Context: a UDP server that sends the datagrams returned by `handler` for each one received."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    with serve_datagrams(server, handler):
        yield Endpoint("udp", host="127.0.0.1", port=server.getsockname()[1])


@contextmanager
def unix_datagram_peer(handler: DatagramHandler, path: Path) -> Iterator[Endpoint]:
    """As `udp_peer`, on a UNIX socket."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    with serve_datagrams(server, handler):
        yield Endpoint("unix+dgram", path=str(path))


@contextmanager
def serve_datagrams(server: socket.socket, handler: DatagramHandler) -> Iterator[None]:
    """Context: serve datagrams in a thread."""
    stop = threading.Event()
    server.settimeout(0.05)  # how often the thread checks `stop`

    def serve() -> None:
        while not stop.is_set():
            try:
                data, sender = server.recvfrom(256 * 1024)
            except TimeoutError:
                continue
            for reply in handler(data):
                server.sendto(reply, sender)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(TIMEOUT)
        server.close()


def closed_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of 127.0.0.1 that is not bound."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def read_line(connection: socket.socket) -> bytes:
    """Read a line with its LF, byte by byte so that no data after it is consumed."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


def read_all(connection: socket.socket) -> bytes:
    """Read everything until the client's EOF."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def echo(connection: socket.socket) -> None:
    """Send all data back at once, and close after the client's EOF."""
    while data := connection.recv(65536):
        connection.sendall(data)


def echo_with_small_buffers(connection: socket.socket) -> None:
    """As `echo`. A client that only sends is blocked once a few MB are on their way."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)
    echo(connection)


def upper_lines(connection: socket.socket) -> None:
    """Reply to each line in upper case, until the client's EOF."""
    while line := read_line(connection):
        connection.sendall(line.upper())


def upper_lines_bytewise(connection: socket.socket) -> None:
    """As `upper_lines`, with each byte in a separate segment."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while line := read_line(connection):
        for byte in line.upper():
            connection.sendall(bytes([byte]))


def reply_at_eof(connection: socket.socket) -> None:
    """Send nothing before the client's EOF."""
    connection.sendall(read_all(connection).upper())


def reply_and_close(connection: socket.socket) -> None:
    """Send one reply without a newline, and close."""
    connection.sendall(b"goodbye to " + read_line(connection).strip())


def close_after_request(connection: socket.socket) -> None:
    """Read the request, and close without a reply."""
    read_line(connection)


def reset_after_request(connection: socket.socket) -> None:
    """Read the request, and reset (SO_LINGER with 0 seconds: close sends RST)."""
    read_line(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_without_replying(connection: socket.socket) -> None:
    """Read everything without replying."""
    read_all(connection)
