"""What is done to a datagram server. The table is in `datagram_server.py`.

Everything here returns for PASS, gives a Note, or raises Failed.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from contextlib import suppress
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.server_context import ServerContext
from bothends.check.suites.stream_concurrency_cases import expect_no_busy_loop
from bothends.check.suites.stream_message_cases import ALTERNATING_LENGTHS
from bothends.check.transcript import quote_bytes

_EXTRA_REPLY_WAIT: Final = 0.15  # seconds in which a second reply to one datagram shows itself
_BURST_DATAGRAMS: Final = 5000
_SIGTERM_TIMEOUT: Final = 2.0
_SECOND_ADDRESS: Final = "127.0.0.2"  # the whole of 127.0.0.0/8 is this machine on Linux (RFC 1122, 3.2.1.3)


async def exchange(ctx: ServerContext, conn: RecordedSocket, message: bytes) -> None:
    """A datagram and its reply."""
    await conn.send(message)
    await conn.expect_datagram(ctx.reply(message))


async def one_message(ctx: ServerContext) -> Note | None:
    """A datagram, its reply, and no second one."""
    client = await ctx.connect()
    await exchange(ctx, client, ctx.message())
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def empty_datagram(ctx: ServerContext) -> Note | None:
    """A datagram without a byte in it, which is a datagram all the same (RFC 768)."""
    client = await ctx.connect()
    await exchange(ctx, client, b"")
    await ctx.expect_still_served("an empty datagram")
    return None


async def largest_datagram(ctx: ServerContext) -> Note | None:
    """The longest datagram that the contract promises."""
    client = await ctx.connect()
    await exchange(ctx, client, ctx.message(0, ctx.contract.max_message_size))
    return None


async def alternating_lengths(ctx: ServerContext) -> Note | None:
    """A long datagram, a short one, a long one: nothing of one is in the reply to the next."""
    client = await ctx.connect()
    for number, size in enumerate(
        size for size in ALTERNATING_LENGTHS if size <= ctx.contract.max_message_size
    ):
        await exchange(ctx, client, ctx.message(number, size))
    return None


async def two_back_to_back(ctx: ServerContext) -> Note | None:
    """Two datagrams, one right after the other."""
    client = await ctx.connect()
    await client.send(ctx.message(1))
    await client.send(ctx.message(2))
    await client.expect_datagrams([ctx.reply(ctx.message(1)), ctx.reply(ctx.message(2))])
    return None


async def two_clients(ctx: ServerContext) -> Note | None:
    """Two clients by turns."""
    one, other = await ctx.connect("one"), await ctx.connect("other")
    for number in range(0, 6, 2):
        await one.send(ctx.message(number))
        await other.send(ctx.message(number + 1))
        await one.expect_datagram(ctx.reply(ctx.message(number)))
        await other.expect_datagram(ctx.reply(ctx.message(number + 1)))
    return None


async def closed_client(ctx: ServerContext) -> Note | None:
    """Clients that close before their reply comes: it meets a port where nobody is (ICMP)."""
    for number in range(3):
        client = await ctx.connect(f"gone {number + 1}")
        with ctx.stopped():  # or a quick server's reply would be there before we are gone
            await client.send(ctx.message(number))
            client.close()
        await asyncio.sleep(0.02)
    await ctx.expect_still_served("clients that were gone before their replies came")
    return None


async def duplicate_datagram(ctx: ServerContext) -> Note | None:
    """The same datagram twice, as a network may do it."""
    client = await ctx.connect()
    await client.send(ctx.message())
    await client.send(ctx.message())
    await client.expect_datagrams([ctx.reply(ctx.message())] * 2)
    return None


async def out_of_order(ctx: ServerContext) -> Note | None:
    """Numbered datagrams in another order than that of their numbers."""
    client = await ctx.connect()
    order = (3, 1, 4, 0, 2)
    for number in order:
        await client.send(ctx.message(number))
    await client.expect_datagrams([ctx.reply(ctx.message(number)) for number in order])
    return None


async def burst(ctx: ServerContext) -> Note | None:
    """Many at once: more than a receive buffer holds. Some are lost, and that is no mistake."""
    client = await ctx.connect()
    with suppress(OSError):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    message = ctx.message()
    client.note(f"sends {_BURST_DATAGRAMS:,} datagrams at once, each {quote_bytes(message)}")
    answered = 0
    for number in range(_BURST_DATAGRAMS):
        with suppress(BlockingIOError, ConnectionRefusedError):
            client.socket.send(message)
        if number % 250 == 249:
            await asyncio.sleep(0)
    with suppress(TimeoutError, OSError):
        while True:
            await client.receive(0.5)
            answered += 1
    client.note(f"receives {answered:,} replies")
    await ctx.expect_still_served(f"{_BURST_DATAGRAMS:,} datagrams at once")
    return Note(Verdict.PASS, f"{answered:,} of {_BURST_DATAGRAMS:,} were answered, the others were lost")


async def reply_source_address(ctx: ServerContext) -> Note | None:
    """Asked at another address of this machine: whence comes the reply?"""
    if ctx.server.program is None or ctx.server.endpoint.host != "127.0.0.1":
        return Note(Verdict.SKIP, "only a server that is started here has a second address that we know")
    port = ctx.server.endpoint.port
    probe = await ctx.connect("probe", endpoint=ctx.server.endpoint.with_host(_SECOND_ADDRESS))
    await probe.send(ctx.message(1))
    try:
        await probe.receive(0.2)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return Note(Verdict.SKIP, "it is bound to one address, so there is no other to ask")
    except TimeoutError:
        pass
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        ctx.transcript.add("client", f"sends {quote_bytes(ctx.message(2))} to {_SECOND_ADDRESS}#{port}")
        sock.sendto(ctx.message(2), (_SECOND_ADDRESS, port))
        try:
            data, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, 65_536), ctx.timeout)
        except TimeoutError:
            raise CheckFailed("a reply", f"nothing came for {ctx.timeout:g} s", timed_out=True) from None
    ctx.transcript.add("client", f"receives {quote_bytes(data)} from {sender[0]}#{sender[1]}")
    if sender != (_SECOND_ADDRESS, port):
        happened = f"it comes from {sender[0]}#{sender[1]}: a client that is connected never sees it"
        raise CheckFailed(f"a reply from {_SECOND_ADDRESS}#{port}, which was asked", happened)
    return None


async def malformed_datagrams(ctx: ServerContext) -> Note | None:
    """Datagrams that are no text, and none of the contract's messages."""
    client = await ctx.connect("stranger")
    for data in (b"\xff\xfe\xfd", b"\x00" * 8, b"\xc3", bytes(range(256)), b"%s%n%s%n"):
        await client.send(data)
    await asyncio.sleep(0.05)
    await ctx.expect_still_served("datagrams that are no messages")
    return None


async def binary_datagram(ctx: ServerContext) -> Note | None:
    """NUL, 0xFF and other bytes that are no text."""
    client = await ctx.connect()
    await exchange(ctx, client, b"nul \x00 and ff \xff " + bytes(range(1, 32)) + bytes(range(127, 256)))
    return None


async def sigterm(ctx: ServerContext) -> Note | None:
    """SIGTERM."""
    await ctx.expect_served("first")
    ctx.signal(signal.SIGTERM, "SIGTERM")
    limit = _SIGTERM_TIMEOUT * ctx.load_factor
    if not await ctx.program.wait(limit):
        raise CheckFailed(
            f"the server to be gone {_SIGTERM_TIMEOUT:g} s after SIGTERM", "it still runs", timed_out=True
        )
    ctx.transcript.add("server", f"ends: {ctx.program.exit_description}")
    if not await ctx.wait_until(lambda: not ctx.is_listening(), limit):
        raise CheckFailed(
            "nobody to listen any more", "a process that it started holds the port", timed_out=True
        )
    return None


async def idle_cpu(ctx: ServerContext) -> Note | None:
    """Nothing to do."""
    await ctx.expect_served("first")
    await asyncio.sleep(0.5)
    return await expect_no_busy_loop(ctx)
