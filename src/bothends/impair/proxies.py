"""All the proxies of one process, by name: what the API, a scenario and the command line work on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.impair.proxy import IDLE_TIMEOUT, Notify, Proxy
from bothends.impair.recording import RecordingWriter, Replay
from bothends.osutil.event_loop import EventLoop


@dataclass(eq=False, repr=False)
class ProxyExists(UsageError):
    """A second proxy of one name. Field: `name`."""

    name: str

    def __str__(self) -> str:
        return f"there is a proxy {self.name!r} already"


class ProxyConfig(NamedTuple):
    """A proxy that there is to be. `framing` is a key of FRAMINGS, or empty."""

    name: str
    listen: Endpoint
    upstream: Endpoint
    enabled: bool = True
    framing: str = ""


class ProxyCollection:
    """Proxies by name, in the order in which they came."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        seed: int = 0,
        notify: Notify = lambda _words: None,
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
        """The proxy of a name, if there is one."""
        return self._proxies.get(name)

    def create(self, config: ProxyConfig) -> Proxy:
        """A proxy that is neither entered nor enabled. Raises BothendsError where it cannot be."""
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
        """Enter a proxy, listening if it is to. Raises ProxyExists, and what binding raises."""
        if proxy.name in self._proxies:
            raise ProxyExists(proxy.name)
        if enabled:
            proxy.enable()
        self._proxies[proxy.name] = proxy

    def remove(self, proxy: Proxy) -> None:
        """Take a proxy away, and cut off who is on it."""
        del self._proxies[proxy.name]
        proxy.disable()

    def populate(self, configs: Sequence[ProxyConfig]) -> list[Proxy]:
        """Have these proxies. One that is there with the same addresses stays as it is, its toxics included;
        one with others is replaced.

        Raises BothendsError; those before the one that failed are there.
        """
        made = [self.create(each) for each in configs]
        result = []
        for proxy, (_, _, _, enabled, _) in zip(made, configs, strict=True):
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
        """Enable all, and take all toxics away. Raises what binding raises."""
        for proxy in self:
            proxy.enable()
            proxy.remove_all_toxics()

    def close(self) -> None:
        """Take all away."""
        for proxy in self:
            self.remove(proxy)


def update_proxy(proxy: Proxy, listen: Endpoint, upstream: Endpoint, *, enabled: bool) -> None:
    """Give a proxy other addresses, which cuts off who is on it, or enable or disable it.

    Raises BothendsError; it is then disabled, with its old addresses.
    """
    if not same_endpoint(proxy.listen, listen) or proxy.upstream != upstream:
        proxy.change_addresses(listen, upstream)
    if enabled:
        proxy.enable()
    else:
        proxy.disable()


def _same_addresses(old: Proxy, new: Proxy) -> bool:
    its, there = (old.upstream, old.framing_name), (new.upstream, new.framing_name)
    return same_endpoint(old.listen, new.listen) and its == there


def same_endpoint(actual: Endpoint, requested: Endpoint) -> bool:
    """Whether an endpoint is the one that was asked for; port 0 asks for any."""
    return actual == requested or (
        requested.port == 0 and actual.port is not None and actual.with_port(0) == requested
    )
