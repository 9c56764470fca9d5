"""The proxies of a process, by name. The API, scenarios and the command line operate on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.escaping import escape_text
from bothends.impair.proxy import IDLE_TIMEOUT, Notify, Proxy
from bothends.impair.recording import RecordingWriter, Replay
from bothends.osutil.event_loop import EventLoop


@dataclass(eq=False, repr=False)
class ProxyExists(UsageError):
    """The name of a new proxy is already taken. Field: `name`."""

    name: str

    def __str__(self) -> str:
        return f"proxy {self.name!r} already exists"


class ProxyConfig(NamedTuple):
    """The settings of a new proxy. `framing` is a key of FRAMINGS, or empty."""

    name: str
    listen: Endpoint
    upstream: Endpoint
    enabled: bool = True
    framing: str = ""


MAX_PROXIES: Final = 1_000
"""Maximum number of proxies: each needs a descriptor, and time to be shown."""

MAX_NAME: Final = 255
"""Maximum length of the name of a proxy or toxic, in characters."""


def check_name(name: str, what: str) -> None:
    """Raise UsageError unless a name can be shown on a terminal, in metrics and in a recording.

    A JSON text can contain control characters and lone surrogates, which are no characters (RFC 8259, 8.2).
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        rule = f"must have 1 to {MAX_NAME} printable characters"
        raise UsageError(f"{what} {rule}, and '{escape_text(name[:40])}' is not such a name")


class ProxyCollection:
    """Proxies by name, in the order of their addition."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        seed: int = 0,
        notify: Notify = lambda _text: None,
        recording: RecordingWriter | None = None,
        replay: Replay | None = None,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.recording = recording
        self._notify = notify
        self._replay = replay
        self._idle_timeout = idle_timeout
        self._proxies: dict[str, Proxy] = {}

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self._proxies.values()))

    def __len__(self) -> int:
        return len(self._proxies)

    def get(self, name: str) -> Proxy | None:
        """Return the proxy of a name, or None."""
        return self._proxies.get(name)

    def create(self, config: ProxyConfig) -> Proxy:
        """Create a proxy without adding or enabling it. Raises BothendsError if its settings are invalid."""
        check_name(config.name, "the name of a proxy")
        proxy = Proxy(
            self.loop,
            config.name,
            config.listen,
            config.upstream,
            seed=self.seed,
            notify=self._notify,
            recording=self.recording,
            replay=self._replay,
            framing=config.framing,
        )
        proxy.idle_timeout = self._idle_timeout
        return proxy

    def add(self, proxy: Proxy, *, enabled: bool = True) -> None:
        """Add a proxy, and enable it if asked.

        Raises ProxyExists, UsageError at MAX_PROXIES, and the exceptions of `Proxy.enable`.
        """
        if proxy.name in self._proxies:
            raise ProxyExists(proxy.name)
        if len(self) >= MAX_PROXIES:
            raise UsageError(f"there are {MAX_PROXIES:,} proxies already, the maximum")
        if enabled:
            proxy.enable()
        self._proxies[proxy.name] = proxy

    def remove(self, proxy: Proxy) -> None:
        """Remove a proxy and abort its connections."""
        del self._proxies[proxy.name]
        proxy.disable()

    def add_or_replace(self, config: ProxyConfig) -> Proxy:
        """Add a proxy. One of its name with the same addresses is kept as it is, another one is replaced.

        Raises the exceptions of `create` and `add`; after an exception of `Proxy.enable`, the old proxy is
        disabled and keeps its addresses.
        """
        proxy, old = self.create(config), self._proxies.get(config.name)
        if old is None:
            self.add(proxy, enabled=config.enabled)
            return proxy
        if _same_addresses(old, proxy):
            return old
        old.disable()  # its port may be that of the new one
        if config.enabled:
            proxy.enable()
        self._proxies[config.name] = proxy
        return proxy

    def close(self) -> None:
        """Remove all proxies."""
        for proxy in self:
            self.remove(proxy)


def update_proxy(proxy: Proxy, listen: Endpoint, upstream: Endpoint, *, enabled: bool) -> None:
    """Change a proxy's addresses, which aborts its connections, or enable or disable it.

    Raises BothendsError; the proxy is then disabled.
    """
    if not listens_at(proxy, listen) or proxy.upstream != upstream:
        proxy.change_addresses(listen, upstream)
    if enabled:
        proxy.enable()
    else:
        proxy.disable()


def _same_addresses(old: Proxy, new: Proxy) -> bool:
    if (old.upstream, old.framing_name) != (new.upstream, new.framing_name):
        return False
    return listens_at(old, new.listen)


def listens_at(proxy: Proxy, requested: Endpoint) -> bool:
    """Whether a proxy's endpoint is the requested one, as it was given or as it was resolved."""
    known = [proxy.listen] if proxy.bound is None else [proxy.listen, proxy.bound]
    return any(_same_endpoint(each, requested) for each in known)


def _same_endpoint(actual: Endpoint, requested: Endpoint) -> bool:
    """Whether an endpoint matches the requested one; port 0 matches any port."""
    return actual == requested or (
        requested.port == 0 and actual.port is not None and actual.with_port(0) == requested
    )
