"""What is done to a stream server by a client that means well: messages, cut and joined in every way.

The table is in `stream_server.py`. Everything here returns for PASS, gives a Remark, or raises Failed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from bothends.check.case import Failed, Remark, Verdict
from bothends.check.subjects.recorded_socket import Talk
from bothends.check.subjects.server_context import Trial

DRIP = 0.02  # seconds between bytes: long enough for a server that waits to have read what is there
_SURPLUS = 0.15  # seconds in which a reply that is too long shows itself; all others wait for nothing
_LARGE = 1 << 20
_MORE = 8 << 20  # bytes: more than the buffers of both ends hold in one direction (4 MiB: tcp(7), tcp_wmem)
_STILL = 0.3  # seconds without a byte taken: both ends wait for us to read
LENGTHS = (700, 40, 700)  # bytes of a long message, a short one, and a long one again
_SIZES = [size + more for size in (512, 1024, 2048, 4096) for more in (-1, 0, 1)]


async def one_message(trial: Trial) -> Remark | None:
    """A message, its reply, and nothing after it."""
    client = await trial.connect()
    await trial.ask(client, trial.message())
    if not trial.contract.endless:
        await client.hear_nothing(_SURPLUS)
    return None


async def dripped(trial: Trial) -> Remark | None:
    """One byte at a time."""
    client = await trial.connect()
    request = trial.request(trial.message())
    await client.say_pieces([request[at : at + 1] for at in range(len(request))], DRIP)
    await client.hear(trial.reply(trial.message()))
    await client.hear_nothing(_SURPLUS)
    return None


async def two_in_one(trial: Trial) -> Remark | None:
    """Two messages in one write."""
    client = await trial.connect()
    await trial.ask(client, trial.message(1), trial.message(2))
    return None


async def several(trial: Trial) -> Remark | None:
    """One message after the other on one connection, each when the last has been answered."""
    client = await trial.connect()
    for number in range(5):
        await trial.ask(client, trial.message(number))
    return None


async def empty_message(trial: Trial) -> Remark | None:
    """A message without a byte in it, and then one with some."""
    client = await trial.connect()
    await client.say(trial.request(b"") + trial.request(trial.message(1)))
    await client.hear(trial.reply(b"", trial.message(1)))
    return None


async def split_delimiter(trial: Trial) -> Remark | None:
    """Cut inside what ends or begins a message: before its end, and in the middle of the next one's."""
    client = await trial.connect()
    first, second = trial.request(trial.message(1)), trial.request(trial.message(2))
    both = first + second
    at = len(first)
    await client.say_pieces([both[: at - 1], both[at - 1 : at + 2], both[at + 2 :]], 0.05)
    await client.hear(trial.reply(trial.message(1), trial.message(2)))
    await client.hear_nothing(_SURPLUS)
    return None


async def split_character(trial: Trial) -> Remark | None:
    """Characters of three bytes, each cut in two. They have no capitals, so that every upper agrees."""
    client = await trial.connect()
    message = "price: 5 € in 日本 (split)".encode()
    request = trial.request(message)
    cuts = [at for at, byte in enumerate(request) if byte >= 0xE0]
    places = [0, *(at + 1 + (number % 2) for number, at in enumerate(cuts)), len(request)]
    pieces = [request[a:b] for a, b in itertools.pairwise(places)]
    await client.say_pieces(pieces, 0.05)
    await client.hear(trial.reply(message))
    return None


async def binary(trial: Trial) -> Remark | None:
    """NUL, 0xFF and all else that is no text."""
    client = await trial.connect()
    rest = bytes(range(1, 32)).replace(b"\n", b"").replace(b"\r", b"")
    message = b"nul \x00 and ff \xff " + rest + bytes(range(127, 256)) + b" end"
    await trial.ask(client, message)
    return None


async def buffer_sizes(trial: Trial) -> Remark | None:
    """Messages that fill common buffers to the byte, on the wire."""
    await _ask_sizes(trial, _SIZES)
    return None


async def lengths(trial: Trial) -> Remark | None:
    """A long message, a short one, a long one: nothing of one is in the reply to the next."""
    await _ask_sizes(trial, LENGTHS)
    return None


async def _ask_sizes(trial: Trial, sizes: Sequence[int]) -> None:
    """Messages of so many bytes on the wire, one after the other. Raises Failed."""
    overhead = len(trial.request(b""))
    client: Talk | None = None
    for number, size in enumerate(size for size in sizes if size <= trial.contract.longest):
        if client is None or not trial.contract.persistent:
            client = await trial.connect()
        try:
            await trial.ask(client, trial.message(number, size - overhead))
        except Failed as failed:
            raise Failed(f"the reply to {size:,} bytes", failed.happened, late=failed.late) from failed
        if not trial.contract.persistent:
            client.close()


async def large(trial: Trial) -> Remark | None:
    """Much, read while it is written."""
    client = await trial.connect()
    if trial.contract.persistent:
        messages = [trial.message(number, 1000) for number in range(_LARGE // 1000)]
    else:
        messages = [trial.message(0, min(trial.contract.longest, _LARGE) - len(trial.request(b"")))]
    request, reply = b"".join(map(trial.request, messages)), trial.reply(*messages)
    writing = asyncio.ensure_future(client.say(request))
    try:
        await client.hear(reply)
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return None


async def late_reader(trial: Trial) -> Remark | None:
    """Much, read when the other end takes no more: then there is no room for the rest of its reply."""
    client = await trial.connect()
    messages = [trial.message(number, 1000) for number in range(_MORE // 1000)]
    request = b"".join(map(trial.request, messages))
    taken = await client.flood(request, _STILL)
    writing = asyncio.ensure_future(client.say(request[taken:]))
    try:
        await client.hear(trial.reply(*messages))
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    return None


async def half_close(trial: Trial) -> Remark | None:
    """Send all, say that this was all, then read."""
    client = await trial.connect()
    messages = [trial.message(number) for number in range(3 if trial.contract.persistent else 1)]
    if trial.contract.framing == "none":
        messages = messages[:1]
    await client.say(b"".join(map(trial.request, messages)))
    client.finish()
    await client.hear(trial.reply(*messages))
    if rest := await client.hear_end():
        raise Failed("the end of the connection after the reply", f"{len(rest):,} bytes more came")
    return None


async def server_closes(trial: Trial) -> Remark | None:
    """After its one reply the server closes, and the client needn't."""
    client = await trial.connect()
    await trial.ask(client, trial.message())
    if rest := await client.hear_end():
        raise Failed("the end of the connection after the reply", f"{len(rest):,} bytes more came")
    return None


async def last_line(trial: Trial) -> Remark | None:
    """The last message lacks its end, and then the client has finished."""
    client = await trial.connect()
    await client.say(trial.request(trial.message())[:-1])
    client.finish()
    try:
        data = await client.hear_end()
    except Failed as failed:
        return Remark(Verdict.INFO, f"a last line without its end: {failed.happened}")
    said = "is answered" if data else "is not answered"
    return Remark(Verdict.INFO, f"a last line without its end {said} when the client has finished")


async def prints(trial: Trial) -> Remark | None:
    """What is said shows on the server's standard output."""
    client = await trial.connect()
    message = trial.message(7)
    await client.say(trial.request(message))
    client.finish()
    if not await trial.program.stdout.wait(lambda printed: message in printed, trial.patience):
        printed = trial.program.stdout.data
        from bothends.check.transcript import shown

        raise Failed(f"{shown(message)} on standard output", f"it printed {shown(printed)}", late=True)
    return None
