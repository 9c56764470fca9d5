"""Bad paths for a test: a proxy with toxics, and hosts whose packets are lost and delayed."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bothends.pytest_plugin.commands import DEFAULT_TIMEOUT, Command, line, run_bothends
from bothends.pytest_plugin.servers import ServerHandle

if TYPE_CHECKING:
    import subprocess

    from bothends.endpoints import Endpoint
    from bothends.impair.proxies import ProxyCollection
    from bothends.impair.proxy import Proxy
    from bothends.osutil.event_loop import EventLoop

T = TypeVar("T")


@dataclass(frozen=True)
class BadPath(ServerHandle):
    """A proxy before a server. Connect to its `endpoint`; the toxics may be changed while it runs."""

    _proxy: Proxy | None = None
    _call: Callable[[Callable[[], object]], object] = lambda work: work()

    def add(self, **toxics: str) -> None:
        """Add toxics as on the command line: add(latency="50ms", loss="up:20%")."""
        from bothends.impair.scenario import parse_toxic

        proxy = self._require_proxy()
        for kind, text in toxics.items():
            for scheduled in parse_toxic(kind, text):
                placed = scheduled.placed
                self._call(lambda placed=placed: proxy.add_toxic(placed))  # type: ignore[misc]

    def heal(self) -> None:
        """Remove all toxics."""
        self._call(self._require_proxy().remove_all_toxics)

    def cut(self) -> None:
        """Close the port and all connections, as if the server had died."""
        self._call(self._require_proxy().disable)

    def restore(self) -> None:
        """Listen again, after `cut`, on the same port."""
        self._call(self._require_proxy().enable)

    def _require_proxy(self) -> Proxy:
        assert self._proxy is not None
        return self._proxy


class PathFactory:
    """The fixture `bothends_path`: each call puts a proxy before a server."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._loop: EventLoop | None = None
        self._proxies: ProxyCollection | None = None

    def __call__(
        self, server: ServerHandle | Endpoint | str, *, seed: int = 1, framing: str = "", **toxics: str
    ) -> BadPath:
        """Start a proxy to a server, with toxics as on the command line of `bothends impair`.

        Args:
            server: a server of these fixtures, or an endpoint of TCP, UDP or a UNIX socket.
            seed: of the random decisions; the same seed and bytes give the same faults.
            framing: what a message of a stream is, for toxics on messages: lines, u16 or u32.
            toxics: latency="50ms±10ms", loss="20%", reset_peer="down:100ms", and so on.

        Raises:
            ToxicError: a toxic is invalid, or not for this kind of socket.
        """
        from bothends.endpoints import Endpoint
        from bothends.impair.proxies import ProxyConfig

        upstream = server.endpoint if isinstance(server, ServerHandle) else server
        upstream = Endpoint.parse(upstream) if isinstance(upstream, str) else upstream
        listen = Endpoint.parse("udp://127.0.0.1:0" if upstream.scheme == "udp" else "tcp://127.0.0.1:0")
        proxies = self._start()
        proxies.seed = seed

        def add() -> Proxy:
            name = f"path-{len(proxies) + 1}"
            proxy = proxies.create(ProxyConfig(name, listen, upstream, framing=framing))
            proxies.add(proxy)
            return proxy

        proxy = self._call(add)
        path = BadPath((proxy.listen,), _proxy=proxy, _call=self._call)
        path.add(**toxics)
        return path

    def _start(self) -> ProxyCollection:
        """Start the event loop of the proxies in a thread, at the first call."""
        from bothends.impair.proxies import ProxyCollection
        from bothends.osutil.event_loop import EventLoop

        if self._proxies is None:
            loop = self._loop = EventLoop()
            self._proxies = ProxyCollection(loop, seed=1, notify=lambda notice: None)
            thread = threading.Thread(target=loop.run, name="bothends-path", daemon=True)
            self._stack.callback(loop.close)
            self._stack.callback(self._proxies.close)
            self._stack.callback(thread.join, DEFAULT_TIMEOUT)
            self._stack.callback(loop.post, loop.stop)
            thread.start()
        return self._proxies

    def _call(self, work: Callable[[], T]) -> T:
        """Call a function on the event loop; return its result, or raise its error."""
        assert self._loop is not None
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put((work(), None))
            except BaseException as error:
                answers.put((None, error))

        self._loop.post(call)
        result, error = answers.get(timeout=DEFAULT_TIMEOUT)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # there was no error


class WireRunner:
    """The fixture `bothends_wire`: commands in hosts of their own, with a bad network between them."""

    def __call__(
        self,
        hosts: Mapping[str, Command],
        *,
        stdin: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        **toxics: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run `bothends wire`: a command in each host, each started once the one before it listens.

        Returns the status of the last command, and the output of all. Skips the test where the system forbids
        user namespaces.

        Args:
            hosts: name -> command; each host resolves the names of the others.
            stdin: the standard input of the last command.
            timeout: seconds after which the test fails.
            toxics: delay="40ms", loss="5%", rate="10mbit", seed="7", and so on.
        """
        __tracebackhide__ = True  # a failure is shown where the test calls this
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in toxics.items()]
        arguments += [f"--host={name}={line(command)}" for name, command in hosts.items()]
        return run_bothends(["wire", *arguments], stdin=stdin, timeout=timeout)
