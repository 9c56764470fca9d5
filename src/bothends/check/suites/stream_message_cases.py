"""What is done to a stream server by a client that means well: messages, cut and joined in every way.

The table is in `stream_server.py`. Everything here returns for PASS, gives a Note, or raises Failed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.server_context import ServerContext

BYTE_INTERVAL = 0.02  # seconds between bytes: long enough for a server that waits to have read what is there
_EXTRA_REPLY_WAIT = (
    0.15  # seconds in which a reply that is too long shows itself; all others wait for nothing
)
_LARGE_TOTAL = 1 << 20
_OVER_ALL_BUFFERS = (
    8 << 20
)  # bytes: more than the buffers of both ends hold in one direction (4 MiB: tcp(7), tcp_wmem)
_STALL_TIMEOUT = 0.3  # seconds without a byte taken: both ends wait for us to read
ALTERNATING_LENGTHS = (700, 40, 700)  # bytes of a long message, a short one, and a long one again
_BUFFER_SIZES = [size + more for size in (512, 1024, 2048, 4096) for more in (-1, 0, 1)]


async def one_message(ctx: ServerContext) -> Note | None:
    """A message, its reply, and nothing after it."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message())
    if not ctx.contract.endless:
        await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def split_write(ctx: ServerContext) -> Note | None:
    """One byte at a time."""
    client = await ctx.connect()
    request = ctx.request(ctx.message())
    await client.send_pieces([request[at : at + 1] for at in range(len(request))], BYTE_INTERVAL)
    await client.expect_reply(ctx.reply(ctx.message()))
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def two_in_one(ctx: ServerContext) -> Note | None:
    """Two messages in one write."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message(1), ctx.message(2))
    return None


async def several_messages(ctx: ServerContext) -> Note | None:
    """One message after the other on one connection, each when the last has been answered."""
    client = await ctx.connect()
    for number in range(5):
        await ctx.exchange(client, ctx.message(number))
    return None


async def empty_message(ctx: ServerContext) -> Note | None:
    """A message without a byte in it, and then one with some."""
    client = await ctx.connect()
    await client.send(ctx.request(b"") + ctx.request(ctx.message(1)))
    await client.expect_reply(ctx.reply(b"", ctx.message(1)))
    return None


async def split_delimiter(ctx: ServerContext) -> Note | None:
    """Cut inside what ends or begins a message: before its end, and in the middle of the next one's."""
    client = await ctx.connect()
    first, second = ctx.request(ctx.message(1)), ctx.request(ctx.message(2))
    both = first + second
    at = len(first)
    await client.send_pieces([both[: at - 1], both[at - 1 : at + 2], both[at + 2 :]], 0.05)
    await client.expect_reply(ctx.reply(ctx.message(1), ctx.message(2)))
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def split_character(ctx: ServerContext) -> Note | None:
    """Characters of three bytes, each cut in two. They have no capitals, so that every upper agrees."""
    client = await ctx.connect()
    message = "price: 5 € in 日本 (split)".encode()
    request = ctx.request(message)
    cuts = [at for at, byte in enumerate(request) if byte >= 0xE0]
    places = [0, *(at + 1 + (number % 2) for number, at in enumerate(cuts)), len(request)]
    pieces = [request[a:b] for a, b in itertools.pairwise(places)]
    await client.send_pieces(pieces, 0.05)
    await client.expect_reply(ctx.reply(message))
    return None


async def binary_message(ctx: ServerContext) -> Note | None:
    """NUL, 0xFF and all else that is no text."""
    client = await ctx.connect()
    rest = bytes(range(1, 32)).replace(b"\n", b"").replace(b"\r", b"")
    message = b"nul \x00 and ff \xff " + rest + bytes(range(127, 256)) + b" end"
    await ctx.exchange(client, message)
    return None


async def buffer_sizes(ctx: ServerContext) -> Note | None:
    """Messages that fill common buffers to the byte, on the wire."""
    await _exchange_sizes(ctx, _BUFFER_SIZES)
    return None


async def alternating_lengths(ctx: ServerContext) -> Note | None:
    """A long message, a short one, a long one: nothing of one is in the reply to the next."""
    await _exchange_sizes(ctx, ALTERNATING_LENGTHS)
    return None


async def _exchange_sizes(ctx: ServerContext, sizes: Sequence[int]) -> None:
    """Messages of so many bytes on the wire, one after the other. Raises Failed."""
    overhead = len(ctx.request(b""))
    client: RecordedSocket | None = None
    for number, size in enumerate(size for size in sizes if size <= ctx.contract.max_message_size):
        if client is None or not ctx.contract.persistent:
            client = await ctx.connect()
        try:
            await ctx.exchange(client, ctx.message(number, size - overhead))
        except CheckFailed as failed:
            raise CheckFailed(
                f"the reply to {size:,} bytes", failed.happened, timed_out=failed.timed_out
            ) from failed
        if not ctx.contract.persistent:
            client.close()


async def large_messages(ctx: ServerContext) -> Note | None:
    """Much, read while it is written."""
    client = await ctx.connect()
    if ctx.contract.persistent:
        messages = [ctx.message(number, 1000) for number in range(_LARGE_TOTAL // 1000)]
    else:
        messages = [ctx.message(0, min(ctx.contract.max_message_size, _LARGE_TOTAL) - len(ctx.request(b"")))]
    request, reply = b"".join(map(ctx.request, messages)), ctx.reply(*messages)
    writing = asyncio.ensure_future(client.send(request))
    try:
        await client.expect_reply(reply)
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return None


async def late_reader(ctx: ServerContext) -> Note | None:
    """Much, read when the other end takes no more: then there is no room for the rest of its reply."""
    client = await ctx.connect()
    messages = [ctx.message(number, 1000) for number in range(_OVER_ALL_BUFFERS // 1000)]
    request = b"".join(map(ctx.request, messages))
    taken = await client.send_without_reading(request, _STALL_TIMEOUT)
    writing = asyncio.ensure_future(client.send(request[taken:]))
    try:
        await client.expect_reply(ctx.reply(*messages))
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return None


async def half_close(ctx: ServerContext) -> Note | None:
    """Send all, say that this was all, then read."""
    client = await ctx.connect()
    messages = [ctx.message(number) for number in range(3 if ctx.contract.persistent else 1)]
    if ctx.contract.framing == "none":
        messages = messages[:1]
    await client.send(b"".join(map(ctx.request, messages)))
    client.shutdown_write()
    await client.expect_reply(ctx.reply(*messages))
    if rest := await client.receive_until_eof():
        raise CheckFailed("the end of the connection after the reply", f"{len(rest):,} bytes more came")
    return None


async def server_closes(ctx: ServerContext) -> Note | None:
    """After its one reply the server closes, and the client needn't."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message())
    if rest := await client.receive_until_eof():
        raise CheckFailed("the end of the connection after the reply", f"{len(rest):,} bytes more came")
    return None


async def unterminated_last_line(ctx: ServerContext) -> Note | None:
    """The last message lacks its end, and then the client has finished."""
    client = await ctx.connect()
    await client.send(ctx.request(ctx.message())[:-1])
    client.shutdown_write()
    try:
        data = await client.receive_until_eof()
    except CheckFailed as failed:
        return Note(Verdict.INFO, f"a last line without its end: {failed.happened}")
    said = "is answered" if data else "is not answered"
    return Note(Verdict.INFO, f"a last line without its end {said} when the client has finished")


async def prints(ctx: ServerContext) -> Note | None:
    """What is said shows on the server's standard output."""
    client = await ctx.connect()
    message = ctx.message(7)
    await client.send(ctx.request(message))
    client.shutdown_write()
    if not await ctx.program.stdout.wait_for(lambda printed: message in printed, ctx.timeout):
        printed = ctx.program.stdout.data
        from bothends.check.transcript import quote_bytes

        raise CheckFailed(
            f"{quote_bytes(message)} on standard output", f"it printed {quote_bytes(printed)}", timed_out=True
        )
    return None
