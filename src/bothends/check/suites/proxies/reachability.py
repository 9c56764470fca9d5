"""Stimuli for stream proxies: upstreams that refuse connections, start later, or do not answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from bothends.check.case import CheckFailed, Note, NotListening
from bothends.check.subjects.proxy_context import ProxyCaseContext
from bothends.check.subjects.upstream import HOST
from bothends.endpoints import Endpoint

_GIVE_UP: Final = 6.0  # seconds in which a refused client must be closed; HAProxy tries for about 3
_UNTIL_CONNECTING: Final = 0.2  # seconds until the proxy has called connect()
_SYN_RETRIES: Final = 4.0  # seconds: a SYN is sent again after 1 s and 3 s (RFC 6298, section 2.1)
_KEEPS_CLIENT: Final = "keeps the client's connection open when connect() to the upstream fails"


async def upstream_refused(ctx: ProxyCaseContext) -> Note | None:
    """Refuse a client's connection at the upstream, then accept the next."""
    await ctx.expect_served("first")
    ctx.upstream.refuse()
    ctx.transcript.add("upstream", "stops listening")
    await _expect_given_up(ctx)
    ctx.upstream.listen()
    ctx.transcript.add("upstream", "listens again")
    await ctx.expect_still_served("a connection that the upstream refused")
    return None


async def upstream_later(ctx: ProxyCaseContext) -> Note | None:
    """Start the proxy before its upstream."""
    ctx.upstream.refuse()
    ctx.transcript.add("upstream", "does not listen")
    await ctx.kill()
    try:
        await ctx.restart()
    except NotListening as error:
        last_line = error.stderr_tail.rpartition("\n")[2]
        raise CheckFailed(
            "the proxy to start without its upstream",
            f"it {error.reason}{f': {last_line}' if last_line else ''}",
            cause="connects to the upstream once when it starts, and exits if that fails",
        ) from error
    await _expect_given_up(ctx)
    ctx.upstream.listen()
    ctx.transcript.add("upstream", "listens")
    await ctx.expect_still_served("the upstream started later than the proxy")
    return None


async def _expect_given_up(ctx: ProxyCaseContext) -> None:
    """Connect a client, and check that its connection ends."""
    client = ctx.start_connect("client without an upstream")
    with suppress(CheckFailed):  # it may be reset before it has sent
        await client.wait_connected()
        await client.send(b"is there an upstream?\n")
    if ending := await ctx.exit_description():
        raise CheckFailed(
            "the proxy to keep running when its upstream refuses", f"the proxy exited: {ending}"
        )
    limit = _GIVE_UP * ctx.load_factor
    if client.is_connected() and not await ctx.wait_ended(client, limit):
        raise CheckFailed(
            "the client's connection to be closed, because the upstream refuses",
            f"it was still open after {limit:g} s",
            timed_out=True,
            cause=_KEEPS_CLIENT,
        )


async def hanging_connect(ctx: ProxyCaseContext) -> Note | None:
    """Let the upstream drop SYNs for a new client, with a full accept queue, and use an older pair."""
    pair = await ctx.open_pair("connected")
    ctx.upstream.listen(backlog=0)
    endpoint = Endpoint("tcp", host=HOST, port=ctx.upstream.port)
    await ctx.connect("filler of the upstream's accept queue", endpoint=endpoint)
    ctx.transcript.add("upstream", "drops SYNs, because its accept queue is full")
    waiting = await ctx.connect("waiting")
    first = b"waiting for the upstream\n"
    await waiting.send(first)
    await asyncio.sleep(_UNTIL_CONNECTING)
    blocked = "a blocking connect() to the upstream holds up all other connections"
    for upwards in (True, False):
        await ctx.relay(*pair.ends(upwards=upwards), b"meanwhile\n", mistake=blocked)
    ctx.upstream.listen()
    ctx.transcript.add("upstream", "accepts again")
    with suppress(TimeoutError):  # a proxy may have given up meanwhile
        sock = await ctx.upstream.accept_from(first, _SYN_RETRIES * ctx.load_factor)
        ctx.record(sock, "upstream of the waiting", first, waiting)
    await ctx.expect_still_served("the upstream did not answer for a moment")
    return None
