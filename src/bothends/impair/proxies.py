"""The proxies of a process, by name. The API, scenarios and the command line operate on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    def populate(self, configs: Sequence[ProxyConfig]) -> list[Proxy]:
        """Add or replace proxies.

        An existing proxy with the same addresses keeps its connections and toxics; one with other addresses
        is replaced. Raises BothendsError; the proxies before the one that failed stay added.
        """
        created = [self.create(each) for each in configs]
        result = []
        for proxy, (_, _, _, enabled, _) in zip(created, configs, strict=True):
            old = self._proxies.get(proxy.name)
            if old is not None and _same_addresses(old, proxy):
                if enabled and not old.enabled:
                    old.enable()
                elif not enabled:
                    old.disable()
                result.append(old)
                continue
            if old is not None:
                self.remove(old)
            self.add(proxy, enabled=enabled)
            result.append(proxy)
        return result

    def reset(self) -> None:
        """Enable all proxies and remove all toxics. Raises the exceptions of `Proxy.enable`."""
        for proxy in self:
            proxy.enable()
            proxy.remove_all_toxics()

    def close(self) -> None:
        """Remove all proxies."""
        for proxy in self:
            self.remove(proxy)


def update_proxy(proxy: Proxy, listen: Endpoint, upstream: Endpoint, *, enabled: bool) -> None:
    """Change a proxy's addresses, which aborts its connections, or enable or disable it.

    Raises BothendsError; the proxy is then disabled and has its old addresses.
    """
    if not same_endpoint(proxy.listen, listen) or proxy.upstream != upstream:
        proxy.change_addresses(listen, upstream)
    if enabled:
        proxy.enable()
    else:
        proxy.disable()


def _same_addresses(old: Proxy, new: Proxy) -> bool:
    if (old.upstream, old.framing_name) != (new.upstream, new.framing_name):
        return False
    return same_endpoint(old.listen, new.listen)


def same_endpoint(actual: Endpoint, requested: Endpoint) -> bool:
    """Whether an endpoint matches the requested one; port 0 matches any port."""
    return actual == requested or (
        requested.port == 0 and actual.port is not None and actual.with_port(0) == requested
    )
