"""The live table of `bothends impair`: connections, bytes, and what each toxic did."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from bothends.cli import terminal
from bothends.impair.proxies import ProxyCollection
from bothends.impair.proxy import Proxy
from bothends.toxics.pipeline import ToxicCounters

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_INTERVAL: Final = 0.25  # seconds between two looks
_MAX_CONNECTIONS: Final = 12  # connections that are shown of each proxy


@contextlib.contextmanager
def live(proxies: ProxyCollection) -> Iterator[None]:
    """Draw the table on standard error, again and again, from the loop itself: no thread looks at a proxy."""
    import rich.console
    import rich.live

    console = rich.console.Console(file=sys.stderr, no_color=not terminal.has_colour(sys.stderr))
    with rich.live.Live(console=console, auto_refresh=False, transient=True) as drawn:

        def draw() -> None:
            drawn.update(_render(proxies), refresh=True)
            proxies.loop.call_later(_REFRESH_INTERVAL, draw)

        draw()
        yield


def summary(proxies: ProxyCollection) -> Iterator[str]:
    """What there has been, in a few lines."""
    for proxy in proxies:
        up, down = proxy.traffic("upstream"), proxy.traffic("downstream")
        what = ("session" if proxy.medium == "datagrams" else "connection") + "s" * (proxy.flows_opened != 1)
        yield (
            f"{proxy.name}: {proxy.flows_opened:,} {what}, {up.received:,} bytes from clients, "
            f"{down.received:,} from the server"
        )
        for name, tally in proxy.toxic_counters.items():
            yield f"  {name}: {_format_counters(tally)}"
        lost = up.overflowed + down.overflowed
        if lost or proxy.datagrams_rejected:
            yield f"  {lost + proxy.datagrams_rejected:,} datagrams dropped for want of room, by no toxic"


def _format_counters(counters: ToxicCounters) -> str:
    did = {name: count for name, count in asdict(counters).items() if count and name != "seen"}
    return f"{counters.seen:,} seen" + "".join(f", {count:,} {name}" for name, count in did.items())


def _render(proxies: ProxyCollection) -> RenderableType:
    import rich.console
    import rich.table

    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("", "client", "up", "down", "held", "toxic", "what it did"):
        table.add_column(head, no_wrap=True, justify="right" if head in ("up", "down", "held") else "left")
    for proxy in proxies:
        for row in _rows(proxy):
            table.add_row(*(rich.markup.escape(cell) for cell in row))
    return rich.console.Group("", table)


def _rows(proxy: Proxy) -> Iterator[tuple[str, ...]]:
    up, down = proxy.traffic("upstream"), proxy.traffic("downstream")
    toxics = [(name, _format_counters(tally)) for name, tally in proxy.toxic_counters.items()]
    count = f"{len(proxy.flows):,} open of {proxy.flows_opened:,}"
    connections: list[tuple[str, ...]] = [
        (proxy.name, count, _format_bytes(up.sent), _format_bytes(down.sent), "")
    ]
    for number, conversation in list(proxy.flows.items())[-_MAX_CONNECTIONS:]:
        if conversation.upstream is None or conversation.downstream is None:
            connections.append(("", f"{number} {conversation.client}", "", "", "dialing"))
            continue
        sides = (conversation.upstream, conversation.downstream)
        sent = [_format_bytes(each.sent) for each in sides]
        held = sum(each.queued + each.pipeline.held for each in sides)
        connections.append(("", f"{number} {conversation.client}", *sent, _format_bytes(held)))
    for line in range(max(len(connections), len(toxics))):
        left = connections[line] if line < len(connections) else ("",) * 5
        yield (*left, *(toxics[line] if line < len(toxics) else ("", "")))


def _format_bytes(count: int) -> str:
    """2,048 as "2.0 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes all")
