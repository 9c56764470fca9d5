"""The live table of `bothends impair`: connections, bytes, and the effects of each toxic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from bothends.cli import terminal
from bothends.impair.proxies import ProxyCollection
from bothends.impair.proxy import Proxy
from bothends.toxics.pipeline import ToxicCounters

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_REFRESH_INTERVAL: Final = 0.25  # seconds
_MAX_CONNECTIONS: Final = 12  # connections shown for each proxy


@contextlib.contextmanager
def live(proxies: ProxyCollection) -> Iterator[None]:
    """Draw the table on standard error every 0.25 s inside the context.

    A timer of the event loop draws it, because proxies are not thread-safe.
    """
    import rich.live

    console = terminal.live_console()
    with rich.live.Live(console=console, auto_refresh=False, transient=True) as drawn:
        rows: list[int] = []  # the width of each, as drawn

        def draw() -> None:
            nonlocal rows
            table = _render(proxies, console.width)
            _erase_wrapped(console, rows)
            drawn.update(table, refresh=True)
            rows = [sum(part.cell_length for part in row) for row in console.render_lines(table, pad=False)]
            proxies.loop.call_later(_REFRESH_INTERVAL, draw)

        draw()
        try:
            yield
        finally:
            _erase_wrapped(console, rows)


def _erase_wrapped(console: Console, rows: Sequence[int]) -> None:
    """Erase the lines that rows drawn for a wider terminal take beside one each: it wraps them (reflow).

    rich erases one line for each row, and so leaves the first ones behind.
    """
    import rich.control
    from rich.segment import ControlType

    width = max(console.width, 1)
    more = sum(max(row - 1, 0) // width for row in rows)
    console.control(
        rich.control.Control(*[(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * more)
    )


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


def _render(proxies: ProxyCollection, width: int) -> RenderableType:
    """Return a table of `width` characters: toxics beside the connections, or below if it is too narrow."""
    import rich.console

    heads = ("", "client", "up", "down", "held", "toxic", "effects")
    rows: list[tuple[str, ...]] = []
    for proxy in proxies:
        connections, toxics = _connections(proxy), _toxics(proxy)
        for line in range(max(len(connections), len(toxics))):
            left = connections[line] if line < len(connections) else ("",) * 5
            rows.append((*left, *(toxics[line] if line < len(toxics) else ("", ""))))
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        return rich.console.Group("", _table(heads, rows))
    parts: list[RenderableType] = []
    for proxy in proxies:
        parts += ["", _table(heads[:5], _connections(proxy))]
        parts += [terminal.cell(f"  {name}: {effects}") for name, effects in _toxics(proxy)]
    return rich.console.Group(*parts)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    import rich.table

    table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, head in enumerate(heads):
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
    return table


def _connections(proxy: Proxy) -> list[tuple[str, ...]]:
    """Return the rows of a proxy and its connections: name, client, bytes up, bytes down, bytes held."""
    up, down = proxy.traffic("upstream"), proxy.traffic("downstream")
    count = f"{len(proxy.flows):,} open of {proxy.flows_opened:,}"
    rows: list[tuple[str, ...]] = [(proxy.name, count, _format_bytes(up.sent), _format_bytes(down.sent), "")]
    for number, flow in list(proxy.flows.items())[-_MAX_CONNECTIONS:]:
        if flow.upstream is None or flow.downstream is None:
            rows.append(("", f"{number} {flow.client}", "", "", "connecting"))
            continue
        links = (flow.upstream, flow.downstream)
        sent = [_format_bytes(each.sent) for each in links]
        held = sum(each.queued + each.pipeline.held for each in links)
        rows.append(("", f"{number} {flow.client}", *sent, _format_bytes(held)))
    return rows


def _toxics(proxy: Proxy) -> list[tuple[str, str]]:
    return [(name, _format_counters(counters)) for name, counters in proxy.toxic_counters.items()]


def _format_bytes(count: int) -> str:
    """Return a size as text: 2,048 as "2.0 KiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable: the last unit has no limit")
