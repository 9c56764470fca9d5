"""Stimuli for stream proxies: bytes pass in both directions, at once and unchanged.

Each returns None for PASS, returns a Note for another verdict, and raises CheckFailed for FAIL.
"""

from __future__ import annotations

from typing import Final

from bothends.check.case import CheckFailed, Note
from bothends.check.subjects.proxy_context import ProxyCaseContext
from bothends.check.subjects.recorded_socket import run_concurrently
from bothends.check.subjects.relayed_bytes import make_bytes, make_text

CROWD: Final = 100  # clients at the same time
_SURPLUS_WAIT: Final = 0.15  # seconds until surplus data is seen, which only a wrong proxy sends
_LARGE: Final = 4 << 20  # bytes in each direction: more than one recv() or send() moves
_ALL_VALUES: Final = bytes(range(256)) + b"\r\n\n\r\n\r\0\xff\xfe \xc3\xa9\xe2\x82\xac\xc3"
_TURNS: Final = "takes turns: waits for the client before it reads from the upstream, or the other way round"


async def one_exchange(ctx: ProxyCaseContext) -> Note | None:
    """Relay a request and a reply, and check that nothing follows them."""
    pair = await ctx.open_pair()
    await ctx.relay(pair.client, pair.upstream, b"request of the CHECK\n")
    await ctx.relay(pair.upstream, pair.client, b"reply of the CHECK\n")
    await ctx.expect_nothing_more(pair.client, _SURPLUS_WAIT)
    await ctx.expect_nothing_more(pair.upstream, _SURPLUS_WAIT)
    return None


async def every_value(ctx: ProxyCaseContext) -> Note | None:
    """Relay bytes of every value, ends of lines and bytes that are not UTF-8."""
    pair = await ctx.open_pair()
    data = _ALL_VALUES + make_bytes("binary", 5000) + b"\n"
    for upwards in (True, False):
        await ctx.relay(*pair.ends(upwards=upwards), data)
    return None


async def both_ways_at_once(ctx: ProxyCaseContext) -> Note | None:
    """Relay much in both directions at the same time."""
    pair = await ctx.open_pair()
    directions = [
        ctx.relay(*pair.ends(upwards=upwards), make_text(f"large {upwards}", _LARGE))
        for upwards in (True, False)
    ]
    await run_concurrently(directions)
    return None


async def out_of_turn(ctx: ProxyCaseContext) -> Note | None:
    """Send several pieces from one side, each received before the next one, while the other is silent."""
    pair = await ctx.open_pair()
    for upwards in (False, True, False):
        for number in range(3):
            data = b"piece %d, and no reply to it\n" % number
            await ctx.relay(*pair.ends(upwards=upwards), data, mistake=_TURNS)
    return None


async def upstream_first(ctx: ProxyCaseContext) -> Note | None:
    """Send a greeting from the upstream, while the client sends nothing."""
    client = await ctx.connect()
    try:
        sock = await ctx.upstream.accept(ctx.timeout)
    except TimeoutError:
        raise CheckFailed(
            "a connection to the upstream for a client that sends nothing",
            f"none arrived within {ctx.timeout:g} s",
            timed_out=True,
            cause="connects to the upstream only when the client has sent something",
        ) from None
    upstream = ctx.record(sock, "upstream")
    await ctx.relay(upstream, client, b"greeting of the upstream\n", mistake=_TURNS)
    return None


async def single_bytes(ctx: ProxyCaseContext) -> Note | None:
    """Send single bytes without an end of a line, each received before the next one."""
    pair = await ctx.open_pair()
    for upwards in (True, False):
        for data in (b"a", b"b", b"c"):
            sender, receiver = pair.ends(upwards=upwards)
            await ctx.relay(
                sender, receiver, data, mistake="waits for a full buffer or for the end of a line"
            )
    return None


async def crowd(ctx: ProxyCaseContext) -> Note | None:
    """Relay different lines for many clients at the same time."""
    pairs = []
    for number in range(CROWD):  # one by one, because `burst` tests the accept queue
        pair = await ctx.open_pair(str(number + 1))
        pair.client.timeout = pair.upstream.timeout = ctx.timeout * 4
        pairs.append(pair)
    mixed = "mixes up connections: one buffer or variable for all of them"
    directions = [
        ctx.relay(*pair.ends(upwards=upwards), _numbered_lines(number, upwards), mistake=mixed)
        for number, pair in enumerate(pairs)
        for upwards in (True, False)
    ]
    await run_concurrently(directions)
    return None


def _numbered_lines(number: int, upwards: bool) -> bytes:
    name = f"{'request' if upwards else 'reply'} of client {number + 1:04}"
    return "".join(f"{name}, line {line:04}\n" for line in range(600)).encode()
