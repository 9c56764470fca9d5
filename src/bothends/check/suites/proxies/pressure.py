"""Stimuli for stream proxies: readers that stop, which must slow down their own sender, and no other.

A proxy that cannot send must stop reading from the other side: then the kernel's window stops the sender
(RFC 9293, section 3.8.6). Otherwise its buffer grows as long as the sender sends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.proxy_context import Pair, ProxyCaseContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import make_text

_OWN_BUFFERS: Final = 32 << 20  # bytes that a proxy may hold in buffers of its own
_DEFAULT_MAXIMUM: Final = 6 << 20  # bytes: of a kernel's buffer, where its limits cannot be read
_STALL_TIMEOUT: Final = 0.5  # seconds without a byte taken, on an idle machine: the proxy has stopped reading
_BLOCK: Final = 1 << 20  # bytes
_AGAINST: Final = 10  # messages against a stopped direction
_LATE: Final = 12 << 20  # bytes
_MAX_STALLED: Final = 96 << 20  # bytes that are sent to stop a direction; a proxy without a limit takes all
_BLOCKS: Final = "a blocking send() to a peer that does not read holds up the other direction"
_BLOCKS_ALL: Final = "a blocking send() to a peer that does not read holds up all other connections"
_LOSES: Final = "drops data that it cannot send at once, or gives the connection up"


async def client_not_reading(ctx: ProxyCaseContext) -> Note | None:
    """Send from the upstream, while the client does not read."""
    return await _not_reading(ctx, upwards=False)


async def upstream_not_reading(ctx: ProxyCaseContext) -> Note | None:
    """Send from the client, while the upstream does not read."""
    return await _not_reading(ctx, upwards=True)


async def _not_reading(ctx: ProxyCaseContext, *, upwards: bool) -> Note | None:
    pair = await ctx.open_pair()
    sender, reader = pair.ends(upwards=upwards)
    limit = _kernel_buffers() + _OWN_BUFFERS
    before = ctx.memory_usage() if ctx.server.program else 0
    block = make_text("not read", _BLOCK)
    taken = await _send_until_stalled(ctx, sender, block * (limit // _BLOCK + 1))
    if taken >= limit:
        growth = ctx.memory_usage() - before if ctx.server.program else 0
        grown = f"; its memory grew by {growth / 1e6:.0f} MB" if growth > 0 else ""
        raise CheckFailed(
            f"the proxy to stop reading while the {reader.name} does not read",
            f"it took all {taken:,} bytes of the {sender.name}{grown}",
            cause="no back-pressure: reads without a limit into a buffer of its own",
        )
    return Note(Verdict.PASS, f"it takes {taken / 1e6:.1f} MB, and then stops reading")


async def late_client(ctx: ProxyCaseContext) -> Note | None:
    """Send from the upstream, and read at the client when the proxy has stopped reading."""
    await _late_reader(ctx, upwards=False)
    return None


async def late_upstream(ctx: ProxyCaseContext) -> Note | None:
    """Send from the client, and read at the upstream when the proxy has stopped reading."""
    await _late_reader(ctx, upwards=True)
    return None


async def _late_reader(ctx: ProxyCaseContext, *, upwards: bool) -> None:
    pair = await ctx.open_pair()
    sender, reader = pair.ends(upwards=upwards)
    data = make_text("read late", _LATE)
    taken = await _send_until_stalled(ctx, sender, data)
    async with ctx.meanwhile(ctx.send_stream(sender, data[taken:])):
        await ctx.expect_bytes(reader, data, mistake=_LOSES)


async def other_direction(ctx: ProxyCaseContext) -> Note | None:
    """Stop one direction, and send in the other one; then the same with the directions exchanged."""
    for upwards in (False, True):
        pair = await _stalled_pair(ctx, upwards=upwards)
        sender, reader = pair.ends(upwards=upwards)
        # Several, because the ACK that the first one carries may make a little room for the stopped data.
        for number in range(_AGAINST):
            await ctx.relay(reader, sender, b"%d against the stream\n" % number, mistake=_BLOCKS)
        reader.reset()
        sender.reset()
    return None


async def stalled_pair(ctx: ProxyCaseContext) -> Note | None:
    """Stop the connection of one client, and relay for others."""
    for upwards in (False, True):
        pair = await _stalled_pair(ctx, upwards=upwards)
        _, reader = pair.ends(upwards=upwards)
        try:
            await ctx.expect_still_served(f"the {reader.name} has stopped reading")
        except CheckFailed as failure:
            failure.cause = _BLOCKS_ALL
            raise
    return None


async def _stalled_pair(ctx: ProxyCaseContext, *, upwards: bool) -> Pair:
    """Return a pair one direction of which stands still, because nothing reads at its end."""
    pair = await ctx.open_pair()
    sender, _ = pair.ends(upwards=upwards)
    await _send_until_stalled(ctx, sender, make_text("stalled", _BLOCK) * (_MAX_STALLED // _BLOCK))
    return pair


async def stalled_cpu(ctx: ProxyCaseContext) -> Note | None:
    """Stop one direction, and measure the CPU time of the proxy."""
    await _stalled_pair(ctx, upwards=False)
    await ctx.expect_no_busy_loop()
    return None


async def _send_until_stalled(ctx: ProxyCaseContext, sender: RecordedSocket, data: bytes) -> int:
    """Send until the proxy takes no more. Returns: the bytes that were taken.

    Raises:
        CheckFailed: the connection ends.
    """
    taken = await sender.send_without_reading(data, _STALL_TIMEOUT * ctx.load_factor)
    if taken < len(data):
        await ctx.expect_nothing_more(sender, 0.05)
    return taken


def _kernel_buffers() -> int:
    """Return how many bytes the kernel buffers for a proxy in one direction at most (tcp(7))."""
    total = 0
    for name in ("tcp_rmem", "tcp_wmem"):
        try:
            text = Path(f"/proc/sys/net/ipv4/{name}").read_text(encoding="ascii")
            total += int(text.split()[2])
        except (OSError, ValueError, IndexError):
            total += _DEFAULT_MAXIMUM
    return total
