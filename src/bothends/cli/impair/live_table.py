"""The live table of `bothends impair`: connections, bytes, and the effects of each toxic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from bothends.cli import terminal
from bothends.impair.proxies import ProxyCollection
from bothends.impair.proxy import Proxy
from bothends.toxics.pipeline import ToxicCounters

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_INTERVAL: Final = 0.25  # seconds
_MAX_CONNECTIONS: Final = 12  # connections shown for each proxy


@contextlib.contextmanager
def live(proxies: ProxyCollection) -> Iterator[None]:
    """Draw the table on standard error every 0.25 s inside the context.

    A timer of the event loop draws it, because proxies are not thread-safe.
    """
    import rich.live

    with rich.live.Live(console=terminal.live_console(), auto_refresh=False, transient=True) as drawn:

        def draw() -> None:
            drawn.update(_render(proxies), refresh=True)
            proxies.loop.call_later(_REFRESH_INTERVAL, draw)

        draw()
        yield


def summary(proxies: ProxyCollection) -> Iterator[str]:
    """Yield lines that sum up connections, bytes and the effects of each toxic."""
    for proxy in proxies:
        up, down = proxy.traffic("upstream"), proxy.traffic("downstream")
        flows = ("session" if proxy.medium == "datagrams" else "connection") + "s" * (proxy.flows_opened != 1)
        yield (
            f"{proxy.name}: {proxy.flows_opened:,} {flows}, {up.received:,} bytes from clients, "
            f"{down.received:,} from the server"
        )
        for name, counters in proxy.toxic_counters.items():
            yield f"  {name}: {_format_counters(counters)}"
        dropped = up.overflowed + down.overflowed + proxy.datagrams_rejected
        if dropped:
            yield f"  {dropped:,} datagrams dropped because a queue was full, not by a toxic"


def _format_counters(counters: ToxicCounters) -> str:
    effects = {name: count for name, count in asdict(counters).items() if count and name != "seen"}
    return f"{counters.seen:,} seen" + "".join(f", {count:,} {name}" for name, count in effects.items())


def _render(proxies: ProxyCollection) -> RenderableType:
    import rich.console
    import rich.table

    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    rows = [row for proxy in proxies for row in _rows(proxy)]
    for index, head in enumerate(("", "client", "up", "down", "held", "toxic", "effects")):
        is_number = head in ("up", "down", "held")
        # A narrow terminal folds the words: a number that is cut is another number.
        width = max(map(len, [head, *(row[index] for row in rows)])) if is_number else None
        table.add_column(
            head,
            no_wrap=is_number,
            min_width=width,
            overflow="fold",
            justify="right" if is_number else "left",
        )
    for row in rows:
        table.add_row(*map(terminal.cell, row))
    return rich.console.Group("", table)


def _rows(proxy: Proxy) -> Iterator[tuple[str, ...]]:
    up, down = proxy.traffic("upstream"), proxy.traffic("downstream")
    toxics = [(name, _format_counters(counters)) for name, counters in proxy.toxic_counters.items()]
    count = f"{len(proxy.flows):,} open of {proxy.flows_opened:,}"
    connections: list[tuple[str, ...]] = [
        (proxy.name, count, _format_bytes(up.sent), _format_bytes(down.sent), "")
    ]
    for number, flow in list(proxy.flows.items())[-_MAX_CONNECTIONS:]:
        if flow.upstream is None or flow.downstream is None:
            connections.append(("", f"{number} {flow.client}", "", "", "connecting"))
            continue
        links = (flow.upstream, flow.downstream)
        sent = [_format_bytes(each.sent) for each in links]
        held = sum(each.queued + each.pipeline.held for each in links)
        connections.append(("", f"{number} {flow.client}", *sent, _format_bytes(held)))
    for line in range(max(len(connections), len(toxics))):
        left = connections[line] if line < len(connections) else ("",) * 5
        yield (*left, *(toxics[line] if line < len(toxics) else ("", "")))


def _format_bytes(count: int) -> str:
    """Return a size as text: 2,048 as "2.0 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable: the last unit has no limit")
