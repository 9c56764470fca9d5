"""Run proxies on an event loop in a thread, with TCP and UDP servers as upstreams."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bothends.endpoints import Endpoint
from bothends.impair.proxies import ProxyCollection, ProxyConfig
from bothends.impair.proxy import Proxy
from bothends.impair.recording import RecordingWriter, Replay
from bothends.impair.scenario import parse_toxic
from bothends.osutil.event_loop import EventLoop

T = TypeVar("T")

TIMEOUT = 20.0  # seconds; only reached by a failing test


class RunningProxies:
    """Runs proxies on an event loop in a thread. Read or change them with `run_on_loop`."""

    def __init__(
        self,
        *,
        seed: int = 1,
        record: Path | None = None,
        replay: Path | None = None,
        idle_timeout: float = 60.0,
    ) -> None:
        self.loop = EventLoop()
        self.notices: list[str] = []
        self._recording = RecordingWriter(record) if record is not None else None
        self.proxies = ProxyCollection(
            self.loop,
            seed=seed,
            notify=self.notices.append,
            recording=self._recording,
            replay=Replay(replay) if replay is not None else None,
            idle_timeout=idle_timeout,
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
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self.proxies.close()
        self.loop.close()
        if self._recording is not None:
            self._recording.close()

    def run_on_loop(self, work: Callable[[], T]) -> T:
        """Call a function on the event loop and return its result."""
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
        assert done.wait(TIMEOUT), "the loop is stuck"
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
        """Start a proxy, with toxics as on the command line: ("latency", "up:50ms")."""
        target = Endpoint.parse(upstream) if isinstance(upstream, str) else upstream

        def add() -> Proxy:
            proxy = self.proxies.create(ProxyConfig(name, Endpoint.parse(listen), target, framing=framing))
            self.proxies.add(proxy)
            return proxy

        proxy = self.run_on_loop(add)
        for kind, text in toxics:
            self.add_toxic(proxy, kind, text)
        return proxy

    def add_toxic(self, proxy: Proxy, kind: str, text: str = "") -> None:
        """Add a toxic to a proxy."""
        for scheduled in parse_toxic(kind, text):
            self.run_on_loop(lambda spec=scheduled.placed: proxy.add_toxic(spec))  # type: ignore[misc]

    def wait_until(self, condition: Callable[[], bool], description: str) -> None:
        """Wait until a condition holds, evaluated on the event loop."""
        deadline = threading.Event()
        for _ in range(int(TIMEOUT / 0.005)):
            if self.run_on_loop(condition):
                return
            deadline.wait(0.005)
        raise AssertionError(f"timed out: {description}")


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Return the socket address of a local TCP or UDP endpoint."""
    return endpoint.host or "127.0.0.1", endpoint.port or 0


def connect(endpoint: Endpoint) -> socket.socket:
    """Connect to a TCP or UNIX proxy. Returns a socket with a timeout."""
    if endpoint.is_unix:
        kind = socket.SOCK_SEQPACKET if endpoint.scheme == "unix+seqpacket" else socket.SOCK_STREAM
        client = socket.socket(socket.AF_UNIX, kind)
        client.settimeout(TIMEOUT)
        client.connect(endpoint.path)
        return client
    client = socket.create_connection(address(endpoint), TIMEOUT)
    return client


def read_all(client: socket.socket) -> bytes:
    """Read until EOF."""
    received = bytearray()
    while data := client.recv(65_536):
        received += data
    return bytes(received)


@contextlib.contextmanager
def tcp_server(handler: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """A TCP server that runs `handler` for each connection, in a thread."""
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
            connection.settimeout(TIMEOUT)
            with connection, contextlib.suppress(OSError):
                handler(connection)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield Endpoint("tcp", host="127.0.0.1", port=port)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(TIMEOUT)
            for thread in threads:
                thread.join(TIMEOUT)


def echo(connection: socket.socket) -> None:
    """Echo input until EOF."""
    while data := connection.recv(65_536):
        connection.sendall(data)


def reverse(connection: socket.socket) -> None:
    """Read until EOF, then respond: a client without a half-close gets no response."""
    connection.sendall(read_all(connection)[::-1])


@contextlib.contextmanager
def udp_echo_server() -> Iterator[Endpoint]:
    """A UDP echo server."""
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
            thread.join(TIMEOUT)
