"""Stimuli for stream proxies: what the process holds, and signals.

Cases that a proxy shares with every server are in `stream_server_stimuli.py`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.proxy_context import Pair, ProxyCaseContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import make_text

_CONNECTIONS: Final = 40  # of each kind
_WARM_UP: Final = 3  # connections of each kind, until all is allocated that stays
_SPARE: Final = _CONNECTIONS // 4  # descriptors and threads that may stay: a pool grows slowly
_IDLE: Final = 4.0  # seconds
_MEMORY_ROUNDS: Final = 6
_ROUND_CONNECTIONS: Final = 16
_ROUND_BYTES: Final = 2 << 20  # bytes on each connection
_RELOAD_CLIENTS: Final = 20
_RELOAD_INTERVAL: Final = 0.05  # seconds between them: a reload takes a moment
_END_WAIT: Final = 0.3  # seconds until an end is passed on; other cases require that
_STILL_OPEN: Final = "does not close one of the two connections when the other one has ended"


async def idle_pair(ctx: ProxyCaseContext) -> Note | None:
    """Send nothing for some seconds, then relay in both directions."""
    pair = await ctx.open_pair("idle")
    await asyncio.sleep(_IDLE)
    closes = "closes connections on which nothing happens for a few seconds"
    for upwards in (True, False):
        sender, receiver = pair.ends(upwards=upwards)
        try:
            await ctx.relay(sender, receiver, b"after a pause\n")
        except CheckFailed as failure:
            failure.cause = closes
            raise
    return None


async def half_closed_cpu(ctx: ProxyCaseContext) -> Note | None:
    """Shut down the client's write side, and measure the CPU time of the proxy."""
    pair = await ctx.open_pair()
    pair.client.shutdown_write()
    await ctx.expect_eof(pair.upstream, "the client has shut down its write side")
    await ctx.expect_no_busy_loop()
    return None


async def _closed_by_client(ctx: ProxyCaseContext, pair: Pair) -> None:
    pair.client.close()
    await _close_at_end(ctx, pair.upstream)


async def _closed_by_upstream(ctx: ProxyCaseContext, pair: Pair) -> None:
    pair.upstream.close()
    await _close_at_end(ctx, pair.client)


async def _half_closed(ctx: ProxyCaseContext, pair: Pair) -> None:
    pair.client.shutdown_write()
    await _closed_by_upstream(ctx, pair)


async def _reset_by_client(ctx: ProxyCaseContext, pair: Pair) -> None:
    pair.client.reset()
    await _close_at_end(ctx, pair.upstream)


async def _reset_by_upstream(ctx: ProxyCaseContext, pair: Pair) -> None:
    pair.upstream.reset()
    await _close_at_end(ctx, pair.client)


async def _close_at_end(ctx: ProxyCaseContext, conn: RecordedSocket) -> None:
    """Close a connection when it has ended at its other end."""
    await ctx.wait_ended(conn, _END_WAIT * ctx.load_factor)
    conn.close()


# How connections end, which is said in a failure -> how they are ended.
_ENDINGS: Final[dict[str, Callable[[ProxyCaseContext, Pair], Awaitable[None]]]] = {
    "that the client closed": _closed_by_client,
    "that the upstream closed": _closed_by_upstream,
    "that the client half-closed, and the upstream closed": _half_closed,
    "that the client reset": _reset_by_client,
    "that the upstream reset": _reset_by_upstream,
}


async def leaks(ctx: ProxyCaseContext) -> Note | None:
    """Open and end connections in several ways, and count descriptors, threads and processes after each."""
    for ending in _ENDINGS.values():
        for _ in range(_WARM_UP):
            await ending(ctx, await ctx.open_pair())
    for name, ending in _ENDINGS.items():
        before = _held(ctx)
        for number in range(_CONNECTIONS):
            await ending(ctx, await ctx.open_pair(str(number + 1)))
        await _expect_released(ctx, before, f"{_CONNECTIONS} connections {name}", _STILL_OPEN)
    before = _held(ctx)
    ctx.upstream.refuse()
    await _connect_refused(ctx)
    ctx.upstream.listen()
    await _expect_released(
        ctx, before, f"{_CONNECTIONS} connections that the upstream refused",
        "does not close the socket, or the client's connection, when connect() to the upstream fails",
    )  # fmt: skip
    return None


async def _connect_refused(ctx: ProxyCaseContext) -> None:
    """Connect clients at the same time, because a proxy may try again for seconds, and close them."""
    clients = []
    for number in range(_CONNECTIONS):
        with suppress(CheckFailed):
            clients.append(await ctx.connect(f"refused {number + 1}"))
            await clients[-1].send(b"is there an upstream?\n")
    await asyncio.gather(*(ctx.wait_ended(client, ctx.timeout) for client in clients))
    for client in clients:
        client.close()


def _held(ctx: ProxyCaseContext) -> tuple[int, int]:
    """Return the numbers of descriptors and of threads."""
    return ctx.fd_count(), ctx.thread_count()


async def _expect_released(ctx: ProxyCaseContext, before: tuple[int, int], after: str, mistake: str) -> None:
    def released() -> bool:
        return all(now <= then + _SPARE for now, then in zip(_held(ctx), before, strict=True))

    if await ctx.wait_until(released, ctx.timeout):
        return
    (descriptors, threads), (had_descriptors, had_threads) = _held(ctx), before
    if descriptors > had_descriptors + _SPARE:
        expected, found = f"about {had_descriptors} open descriptors", f"{descriptors} are open"
    else:
        expected, found = f"about {had_threads} threads or processes", f"there are {threads}"
        mistake = "a thread or process waits for ever, or is not waited for"
    raise CheckFailed(
        f"{expected}, as before", f"{found} after {after}, at both ends", timed_out=True, cause=mistake
    )


async def memory(ctx: ProxyCaseContext) -> Note | None:
    """Relay much on many connections, and measure the memory of the proxy after each round."""
    data = make_text("memory", _ROUND_BYTES)
    used = []
    for _ in range(_MEMORY_ROUNDS):
        for number in range(_ROUND_CONNECTIONS):
            pair = await ctx.open_pair(str(number + 1))
            await ctx.relay(pair.client, pair.upstream, data)
            await _closed_by_client(ctx, pair)
        used.append(ctx.memory_usage())
    relayed = _ROUND_CONNECTIONS * _ROUND_BYTES
    # A garbage collector's heap grows at first, too, but it does not in every round.
    growth = [after - before for before, after in zip(used[-3:], used[-2:], strict=False)]
    if all(each > relayed / 2 for each in growth):
        raise CheckFailed(
            "the memory of closed connections to be freed",
            f"it grew by {used[-1] - used[-2]:,} bytes while {relayed:,} were relayed, in every round",
            cause="keeps what it has relayed, or the state of closed connections",
        )
    return Note(
        Verdict.PASS, f"{used[-1] / 1e6:.0f} MB after {_MEMORY_ROUNDS * relayed / 1e6:.0f} MB relayed"
    )


async def reload(ctx: ProxyCaseContext) -> Note | None:
    """Send the signal that reloads the configuration, while clients come and one stays."""
    if not ctx.reload_signal:
        return Note(Verdict.SKIP, "no signal is known that reloads its configuration (--reload)")
    pair = await ctx.open_pair("that stays")
    name = signal.Signals(ctx.reload_signal).name
    ctx.signal(ctx.reload_signal, name)
    for number in range(_RELOAD_CLIENTS):
        try:
            await ctx.expect_served(f"{number + 1}")
        except CheckFailed as failure:
            ending = await ctx.exit_description()
            happened = f"{failure.happened}{f'; the proxy exited: {ending}' if ending else ''}"
            raise CheckFailed(
                f"each client to be served while {name} reloads the configuration",
                happened,
                timed_out=failure.timed_out,
                cause="closes its listening socket for a moment, or the signal ends it",
            ) from failure
        await asyncio.sleep(_RELOAD_INTERVAL)
    for upwards in (True, False):
        try:
            await ctx.relay(*pair.ends(upwards=upwards), b"after the reload\n")
        except CheckFailed as failure:
            failure.cause = f"{name} ends the connections that are open"
            raise
    return None
