"""Small peers for a client to talk to, each on a real socket and in a thread of its own."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bothends.endpoints import Endpoint

TIMEOUT = 20.0  # longer than any of these tests may take; only a broken one waits for it

ConnectionHandler = Callable[[socket.socket], None]


@contextmanager
def tcp_peer(handler: ConnectionHandler, *, connections: int = 1) -> Iterator[Endpoint]:
    """A TCP server that welcomes so many, one after the other, and treats each as `behave` does."""
    listener = socket.create_server(("127.0.0.1", 0))
    with serve_connections(listener, handler, connections):
        yield Endpoint("tcp", host="127.0.0.1", port=listener.getsockname()[1])


@contextmanager
def tcp_peer_held_open(handler: ConnectionHandler) -> Iterator[Endpoint]:
    """As `peer`, and when all is said the connection stays open until the context ends."""
    leave = threading.Event()

    def behave_and_stay(connection: socket.socket) -> None:
        handler(connection)
        leave.wait(TIMEOUT)

    with tcp_peer(behave_and_stay) as endpoint:
        try:
            yield endpoint
        finally:
            leave.set()


@contextmanager
def seqpacket_peer(handler: ConnectionHandler, path: Path) -> Iterator[Endpoint]:
    """The same for one connection of sequenced packets."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    with serve_connections(listener, handler, 1):
        yield Endpoint("unix+seqpacket", path=str(path))


@contextmanager
def serve_connections(
    listener: socket.socket, handler: ConnectionHandler, connections: int
) -> Iterator[None]:
    """Serve a listener in a thread; what goes wrong there fails the test."""
    problems: list[BaseException] = []
    listener.settimeout(TIMEOUT)

    def serve() -> None:
        try:
            for _ in range(connections):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(TIMEOUT)
                    handler(connection)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the peer still waits"
        assert not problems, problems
    finally:
        listener.close()


DatagramHandler = Callable[[bytes], list[bytes]]


@contextmanager
def udp_peer(handler: DatagramHandler) -> Iterator[Endpoint]:
    """A UDP socket that sends back, for each datagram, the datagrams that `answer` gives."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    with serve_datagrams(server, handler):
        yield Endpoint("udp", host="127.0.0.1", port=server.getsockname()[1])


@contextmanager
def unix_datagram_peer(handler: DatagramHandler, path: Path) -> Iterator[Endpoint]:
    """The same on a UNIX socket."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    with serve_datagrams(server, handler):
        yield Endpoint("unix+dgram", path=str(path))


@contextmanager
def serve_datagrams(server: socket.socket, handler: DatagramHandler) -> Iterator[None]:
    """Answer datagrams in a thread, until the context ends."""
    stop = threading.Event()
    server.settimeout(0.05)  # how soon the thread sees `stop`

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
    """A port of 127.0.0.1 that nobody has open."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def read_line(connection: socket.socket) -> bytes:
    """A line with its end, read byte by byte so that nothing behind it is taken."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


def read_all(connection: socket.socket) -> bytes:
    """Everything until the client's EOF."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def echo(connection: socket.socket) -> None:
    """Send everything back, at once, and close when the client has finished."""
    while data := connection.recv(65536):
        connection.sendall(data)


def upper_lines(connection: socket.socket) -> None:
    """A line in, a line out in capitals, until the client has finished."""
    while line := read_line(connection):
        connection.sendall(line.upper())


def upper_lines_bytewise(connection: socket.socket) -> None:
    """As `shout`, each byte in a segment of its own."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while line := read_line(connection):
        for byte in line.upper():
            connection.sendall(bytes([byte]))


def reply_at_eof(connection: socket.socket) -> None:
    """Say nothing before the client has finished."""
    connection.sendall(read_all(connection).upper())


def reply_and_close(connection: socket.socket) -> None:
    """One answer, without a newline, and goodbye."""
    connection.sendall(b"goodbye to " + read_line(connection).strip())


def close_after_request(connection: socket.socket) -> None:
    """Take the request and close in good order, without a word."""
    read_line(connection)


def reset_after_request(connection: socket.socket) -> None:
    """Take the request and reset (SO_LINGER with 0 seconds: close sends RST)."""
    read_line(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_without_replying(connection: socket.socket) -> None:
    """Read everything, answer nothing."""
    read_all(connection)
