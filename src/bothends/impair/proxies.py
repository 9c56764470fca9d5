"""All the proxies of one process, by name: what the API, a scenario and the command line work on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bothends.endpoints import Endpoint
from bothends.errors import CallerError
from bothends.impair.proxy import IDLE, Proxy, Tell
from bothends.impair.recording import Journal, Replay
from bothends.osutil.event_loop import Loop


@dataclass(eq=False, repr=False)
class ProxyExists(CallerError):
    """A second proxy of one name. Field: `name`."""

    name: str

    def __str__(self) -> str:
        return f"there is a proxy {self.name!r} already"


class Wanted(NamedTuple):
    """A proxy that there is to be. `framing` is a key of FRAMINGS, or empty."""

    name: str
    listen: Endpoint
    upstream: Endpoint
    enabled: bool = True
    framing: str = ""


class Proxies:
    """Proxies by name, in the order in which they came."""

    def __init__(
        self,
        loop: Loop,
        *,
        seed: int = 0,
        tell: Tell = lambda _words: None,
        journal: Journal | None = None,
        replay: Replay | None = None,
        idle: float = IDLE,
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.journal = journal
        self._tell = tell
        self._replay = replay
        self._idle = idle
        self._proxies: dict[str, Proxy] = {}

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self._proxies.values()))

    def __len__(self) -> int:
        return len(self._proxies)

    def get(self, name: str) -> Proxy | None:
        """The proxy of a name, if there is one."""
        return self._proxies.get(name)

    def make(self, wanted: Wanted) -> Proxy:
        """A proxy that is neither entered nor enabled. Raises BothendsError where it cannot be."""
        proxy = Proxy(
            self.loop,
            wanted.name,
            wanted.listen,
            wanted.upstream,
            seed=self.seed,
            tell=self._tell,
            journal=self.journal,
            replay=self._replay,
            framing=wanted.framing,
        )
        proxy.idle = self._idle
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

    def populate(self, wanted: Sequence[Wanted]) -> list[Proxy]:
        """Have these proxies. One that is there with the same addresses stays as it is, its toxics included;
        one with others is replaced.

        Raises BothendsError; those before the one that failed are there.
        """
        made = [self.make(each) for each in wanted]
        result = []
        for proxy, (_, _, _, enabled, _) in zip(made, wanted, strict=True):
            old = self._proxies.get(proxy.name)
            if old is not None and _is_same(old, proxy):
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
            proxy.clear()

    def close(self) -> None:
        """Take all away."""
        for proxy in self:
            self.remove(proxy)


def move(proxy: Proxy, listen: Endpoint, upstream: Endpoint, *, enabled: bool) -> None:
    """Give a proxy other addresses, which cuts off who is on it, or enable or disable it.

    Raises BothendsError; it is then disabled, with its old addresses.
    """
    if not is_same(proxy.listen, listen) or proxy.upstream != upstream:
        proxy.move(listen, upstream)
    if enabled:
        proxy.enable()
    else:
        proxy.disable()


def _is_same(old: Proxy, new: Proxy) -> bool:
    its, there = (old.upstream, old.framed), (new.upstream, new.framed)
    return is_same(old.listen, new.listen) and its == there


def is_same(real: Endpoint, asked: Endpoint) -> bool:
    """Whether an endpoint is the one that was asked for; port 0 asks for any."""
    return real == asked or (asked.port == 0 and real.port is not None and real.with_port(0) == asked)
