"""Proxies on a loop in a thread of the test, and servers to lead to."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bothends.endpoints import Endpoint
from bothends.impair.proxies import Proxies, Wanted
from bothends.impair.proxy import Proxy
from bothends.impair.recording import Journal, Replay
from bothends.impair.scenario import from_text
from bothends.osutil.event_loop import Loop

T = TypeVar("T")

PATIENCE = 20.0  # seconds: only what is broken waits for it


class Running:
    """Proxies that run. What looks at them, or changes them, is done on their own loop."""

    def __init__(
        self, *, seed: int = 1, record: Path | None = None, replay: Path | None = None, idle: float = 60.0
    ) -> None:
        self.loop = Loop()
        self.told: list[str] = []
        self._journal = Journal(record) if record is not None else None
        self.proxies = Proxies(
            self.loop,
            seed=seed,
            tell=self.told.append,
            journal=self._journal,
            replay=Replay(replay) if replay is not None else None,
            idle=idle,
        )
        self._thread = threading.Thread(target=self.loop.run, name="impair")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.loop.post(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.proxies.close()
        self.loop.close()
        if self._journal is not None:
            self._journal.close()

    def do(self, work: Callable[[], T]) -> T:
        """Do something on the loop, and wait for it."""
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            done.set()

        self.loop.post(call)
        assert done.wait(PATIENCE), "the loop is stuck"
        if errors:
            raise errors[0]
        return results[0]

    def proxy(
        self,
        listen: str,
        upstream: Endpoint | str,
        *toxics: tuple[str, str],
        name: str = "proxy",
        framing: str = "",
    ) -> Proxy:
        """A proxy that listens, with toxics as on the command line: ("latency", "up:50ms")."""
        leads_to = Endpoint.parse(upstream) if isinstance(upstream, str) else upstream

        def make() -> Proxy:
            proxy = self.proxies.make(Wanted(name, Endpoint.parse(listen), leads_to, framing=framing))
            self.proxies.add(proxy)
            return proxy

        made = self.do(make)
        for kind, text in toxics:
            self.put(made, kind, text)
        return made

    def put(self, proxy: Proxy, kind: str, text: str = "") -> None:
        """Put a toxic on a proxy."""
        for planned in from_text(kind, text):
            self.do(lambda spec=planned.spec: proxy.add(spec))  # type: ignore[misc]

    def wait_until(self, look: Callable[[], bool], what: str) -> None:
        """Wait until something holds, as seen from the loop."""
        deadline = threading.Event()
        for _ in range(int(PATIENCE / 0.005)):
            if self.do(look):
                return
            deadline.wait(0.005)
        raise AssertionError(f"never: {what}")


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Where to connect to a TCP or UDP endpoint of this machine."""
    return endpoint.host or "127.0.0.1", endpoint.port or 0


def call(endpoint: Endpoint) -> socket.socket:
    """A client of a TCP or UNIX proxy, with a time limit."""
    if endpoint.is_unix:
        kind = socket.SOCK_SEQPACKET if endpoint.scheme == "unix+seqpacket" else socket.SOCK_STREAM
        client = socket.socket(socket.AF_UNIX, kind)
        client.settimeout(PATIENCE)
        client.connect(endpoint.path)
        return client
    client = socket.create_connection(address(endpoint), PATIENCE)
    return client


def read_all(client: socket.socket) -> bytes:
    """All that comes, to its end."""
    received = bytearray()
    while data := client.recv(65_536):
        received += data
    return bytes(received)


@contextlib.contextmanager
def tcp_server(talk: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """A TCP server that does something with each connection, in a thread of its own."""
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()

        def serve(connection: socket.socket) -> None:
            connection.settimeout(PATIENCE)
            with connection, contextlib.suppress(OSError):
                talk(connection)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=port)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(PATIENCE)
            for thread in threads:
                thread.join(PATIENCE)


def echo(connection: socket.socket) -> None:
    """Give back what comes, as it comes, to its end."""
    while data := connection.recv(65_536):
        connection.sendall(data)


def reverse(connection: socket.socket) -> None:
    """Read to the end, and only then answer: who is not told of the end never hears anything."""
    connection.sendall(read_all(connection)[::-1])


@contextlib.contextmanager
def datagram_echo() -> Iterator[Endpoint]:
    """A UDP server that gives back what comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def work() -> None:
            while True:
                data, peer = sock.recvfrom(65_536)
                if data == b"END OF THE SERVER":
                    return
                sock.sendto(data, peer)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield Endpoint("udp", host="127.0.0.1", port=sock.getsockname()[1])
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"END OF THE SERVER", sock.getsockname())
            thread.join(PATIENCE)
