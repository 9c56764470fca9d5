"""Stimuli for stream proxies: half-closes, closes and resets, which must reach the other side.

A proxy has two connections for one. What ends at one of them must end at the other, in the same direction,
after all bytes that came before (RFC 9293, sections 3.6 and 3.10.4).
"""

from __future__ import annotations

import asyncio
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.proxy_context import ProxyCaseContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import make_text
from bothends.errors import errno_text

_LATE_REPLY: Final = 1.5  # seconds after a half-close; socat closes after 0.5 s by default (-t)
_HALF_CLOSED: Final = 100_000  # bytes
_CLOSED: Final = 1 << 20  # bytes: more than one side reads before the other has closed
_SLOW_START: Final = 0.2  # seconds until the data and its end are on their way
_ENDLESS: Final = 64 << 20  # bytes: more than all buffers hold
_CHUNK: Final = 1 << 16
_NO_FIN: Final = "does not pass the end on: no shutdown(SHUT_WR) on the other connection"
_CLOSES_BOTH: Final = "closes both connections at the first EOF, and loses the other direction"
_LINGERS: Final = "closes both connections some time after the first EOF, whatever is still to come"
_LOSES_REST: Final = "closes at EOF although data that it has read before is not sent yet"
_NO_RESET: Final = "ignores the error of recv(), and leaves the other connection open"
_KEEPS_READING: Final = "ignores the error of send(), and leaves the other connection open"


async def half_close_by_client(ctx: ProxyCaseContext) -> Note | None:
    """Shut down the client's write side, then let the upstream reply."""
    await _half_close(ctx, upwards=True)
    return None


async def half_close_by_upstream(ctx: ProxyCaseContext) -> Note | None:
    """Shut down the upstream's write side, then let the client send."""
    await _half_close(ctx, upwards=False)
    return None


async def _half_close(ctx: ProxyCaseContext, *, upwards: bool) -> None:
    pair = await ctx.open_pair()
    finished, answering = pair.ends(upwards=upwards)
    await ctx.relay(finished, answering, make_text("before the end", _HALF_CLOSED))
    finished.shutdown_write()
    await ctx.expect_eof(answering, f"the {finished.name} has shut down its write side", mistake=_NO_FIN)
    first, second = make_text("first part", _HALF_CLOSED), make_text("second part", _HALF_CLOSED)
    await ctx.relay(answering, finished, first, mistake=_CLOSES_BOTH)
    await asyncio.sleep(_LATE_REPLY)
    await ctx.relay(answering, finished, second, mistake=_LINGERS)
    answering.close()
    await ctx.expect_eof(finished, f"the {answering.name} has closed", mistake=_NO_FIN)


async def close_by_client(ctx: ProxyCaseContext) -> Note | None:
    """Send and close at once, while the upstream reads late."""
    await _close_after_data(ctx, upwards=True)
    return None


async def close_by_upstream(ctx: ProxyCaseContext) -> Note | None:
    """Send and close at once from the upstream, while the client reads late."""
    await _close_after_data(ctx, upwards=False)
    return None


async def _close_after_data(ctx: ProxyCaseContext, *, upwards: bool) -> None:
    pair = await ctx.open_pair()
    closing, reading = pair.ends(upwards=upwards)
    data = make_text("before the close", _CLOSED)

    async def send_and_close() -> None:
        await ctx.send_stream(closing, data)
        closing.close()

    async with ctx.meanwhile(send_and_close()):
        await asyncio.sleep(_SLOW_START)
        await ctx.expect_bytes(reading, data, mistake=_LOSES_REST)
    await ctx.expect_eof(reading, f"the {closing.name} has closed", mistake=_NO_FIN)


async def silent_clients(ctx: ProxyCaseContext) -> Note | None:
    """Connect and close without sending; what the proxy opened for these clients must end, too."""
    for number in range(4):
        client = await ctx.connect(f"silent {number + 1}")
        if number % 2:
            client.reset()
        else:
            client.close()
    await ctx.expect_still_served("clients that closed without sending")
    if not await ctx.wait_until(lambda: not ctx.upstream.describe_unclaimed()[0], ctx.timeout):
        count, _ = ctx.upstream.describe_unclaimed()
        raise CheckFailed(
            "the upstream's connections to end with those of the clients",
            f"{count} of {ctx.upstream.accepted} stay open, whose clients have closed",
            timed_out=True,
            cause=_NO_FIN,
        )
    return None


async def reset_by_client(ctx: ProxyCaseContext) -> Note | None:
    """Reset the client's connection."""
    return await _reset(ctx, upwards=True)


async def reset_by_upstream(ctx: ProxyCaseContext) -> Note | None:
    """Reset the upstream's connection."""
    return await _reset(ctx, upwards=False)


async def reset_after_half_close(ctx: ProxyCaseContext) -> Note | None:
    """Shut down the client's write side, and reset the upstream's connection instead of a reply."""
    pair = await ctx.open_pair()
    pair.client.shutdown_write()
    await ctx.expect_eof(pair.upstream, "the client has shut down its write side", mistake=_NO_FIN)
    return await _expect_reset_passed_on(ctx, pair.upstream, pair.client)


async def _reset(ctx: ProxyCaseContext, *, upwards: bool) -> Note | None:
    pair = await ctx.open_pair()
    resetting, other = pair.ends(upwards=upwards)
    await ctx.relay(resetting, other, b"a part of a message\n")
    return await _expect_reset_passed_on(ctx, resetting, other)


async def _expect_reset_passed_on(
    ctx: ProxyCaseContext, resetting: RecordedSocket, other: RecordedSocket
) -> Note | None:
    resetting.reset()
    ending = await ctx.wait_ended(other, ctx.timeout)
    if not ending:
        raise CheckFailed(
            f"the {other.name}'s connection to end after the {resetting.name} has reset its own",
            f"it was still open after {ctx.timeout:g} s",
            timed_out=True,
            cause=_NO_RESET,
        )
    await ctx.expect_still_served(f"a reset by the {resetting.name}")
    if ending == "EOF":
        text = f"the reset becomes EOF: for the {other.name}, what was cut off looks complete"
        return Note(Verdict.NON_STRICT, text)
    return None


async def client_gone(ctx: ProxyCaseContext) -> Note | None:
    """Close the client while the upstream sends without an end."""
    await _receiver_gone(ctx, upwards=False)
    return None


async def upstream_gone(ctx: ProxyCaseContext) -> Note | None:
    """Close the upstream's connection while the client sends without an end."""
    await _receiver_gone(ctx, upwards=True)
    return None


async def _receive_something(ctx: ProxyCaseContext, receiver: RecordedSocket) -> None:
    try:
        await receiver.receive(ctx.timeout)
    except (TimeoutError, OSError) as error:
        happened = f"nothing arrived: {error!r}"
        raise CheckFailed(f"the {receiver.name} to receive data", happened, timed_out=True) from error


async def _receiver_gone(ctx: ProxyCaseContext, *, upwards: bool) -> None:
    pair = await ctx.open_pair()
    sender, receiver = pair.ends(upwards=upwards)
    sender.note("sends without an end")
    loop = asyncio.get_running_loop()
    chunk = make_text("endless", _CHUNK)
    sent, is_ended = 0, False

    async def stream() -> None:
        nonlocal sent, is_ended
        try:
            while sent < _ENDLESS:
                await loop.sock_sendall(sender.socket, chunk)
                sent += len(chunk)
        except OSError as error:
            sender.note(f"send() fails after {sent:,} bytes: {errno_text(error.errno or 0)}")
            is_ended = True

    streaming = asyncio.ensure_future(stream())
    try:
        await _receive_something(ctx, receiver)
        receiver.close()  # with unread data, so that the kernel sends RST (RFC 1122, section 4.2.2.13)
        await asyncio.wait((streaming,), timeout=ctx.timeout)
    finally:
        streaming.cancel()
        await asyncio.gather(streaming, return_exceptions=True)
    if not is_ended:  # EOF alone does not stop the sender: it may be a half-close
        raise CheckFailed(
            f"send() to fail at the {sender.name} after the {receiver.name} has left",
            f"the proxy took {sent:,} bytes, and the connection is still open",
            timed_out=True,
            cause=_KEEPS_READING,
        )
    await ctx.expect_still_served(f"the {receiver.name} left while the {sender.name} was sending")
