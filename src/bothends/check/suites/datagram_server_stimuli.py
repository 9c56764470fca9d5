"""Stimuli for datagram servers. The table is in `datagram_server_table.py`.

Each returns None for PASS, returns a Note for another verdict, and raises CheckFailed for FAIL.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.server_context import ServerContext
from bothends.check.suites.stream_server_stimuli import ALTERNATING_LENGTHS
from bothends.check.transcript import quote_bytes

_EXTRA_REPLY_WAIT: Final = 0.15  # seconds until a second reply to one datagram is seen
_BURST_DATAGRAMS: Final = 5000
_SECOND_ADDRESS: Final = "127.0.0.2"  # all of 127.0.0.0/8 is this machine on Linux (RFC 1122, 3.2.1.3)


async def exchange(ctx: ServerContext, client: RecordedSocket, message: bytes) -> None:
    """Send a datagram, and receive its reply."""
    await client.send(message)
    await client.expect_datagram(ctx.reply(message))


async def one_message(ctx: ServerContext) -> Note | None:
    """Send a datagram, and check that no second reply follows."""
    client = await ctx.connect()
    try:
        await exchange(ctx, client, ctx.message())
    except CheckFailed as failure:
        # No reply: the server may be silent, or have sent it elsewhere. This end can't see which.
        if failure.timed_out and not failure.cause:
            failure.cause = "sends no reply, or sends it to another address: bothends trace shows which"
        raise
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def empty_datagram(ctx: ServerContext) -> Note | None:
    """Send an empty datagram, which is a message (RFC 768)."""
    client = await ctx.connect()
    await exchange(ctx, client, b"")
    await ctx.expect_still_served("an empty datagram")
    return None


async def largest_datagram(ctx: ServerContext) -> Note | None:
    """Send a datagram of the contract's maximum size."""
    client = await ctx.connect()
    await exchange(ctx, client, ctx.message(0, ctx.contract.max_message_size))
    return None


async def alternating_lengths(ctx: ServerContext) -> Note | None:
    """Send a long datagram, a short one, and a long one: no reply may contain data of an earlier one."""
    client = await ctx.connect()
    for number, size in enumerate(
        size for size in ALTERNATING_LENGTHS if size <= ctx.contract.max_message_size
    ):
        await exchange(ctx, client, ctx.message(number, size))
    return None


async def two_back_to_back(ctx: ServerContext) -> Note | None:
    """Send two datagrams, one right after the other."""
    client = await ctx.connect()
    await client.send(ctx.message(1))
    await client.send(ctx.message(2))
    await client.expect_datagrams([ctx.reply(ctx.message(1)), ctx.reply(ctx.message(2))])
    return None


async def two_clients(ctx: ServerContext) -> Note | None:
    """Send datagrams from two clients alternately."""
    first, second = await ctx.connect("first"), await ctx.connect("second")
    for number in range(0, 6, 2):
        await first.send(ctx.message(number))
        await second.send(ctx.message(number + 1))
        await first.expect_datagram(ctx.reply(ctx.message(number)))
        await second.expect_datagram(ctx.reply(ctx.message(number + 1)))
    return None


async def closed_client(ctx: ServerContext) -> Note | None:
    """Close clients before their reply, which is then answered by ICMP port unreachable."""
    for number in range(3):
        client = await ctx.connect(f"closed {number + 1}")
        with ctx.stopped():  # so that the reply of a fast server does not arrive before the close
            await client.send(ctx.message(number))
            client.close()
        await asyncio.sleep(0.02)
    await ctx.expect_still_served("clients that closed before their replies arrived")
    return None


async def duplicate_datagram(ctx: ServerContext) -> Note | None:
    """Send the same datagram twice, as a network may do."""
    client = await ctx.connect()
    await client.send(ctx.message())
    await client.send(ctx.message())
    await client.expect_datagrams([ctx.reply(ctx.message())] * 2)
    return None


async def out_of_order(ctx: ServerContext) -> Note | None:
    """Send numbered datagrams out of order."""
    client = await ctx.connect()
    order = (3, 1, 4, 0, 2)
    for number in order:
        await client.send(ctx.message(number))
    await client.expect_datagrams([ctx.reply(ctx.message(number)) for number in order])
    return None


async def burst(ctx: ServerContext) -> Note | None:
    """Send more datagrams at once than a receive buffer holds. The loss of some is not a fault."""
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
    return Note(Verdict.PASS, f"{answered:,} of {_BURST_DATAGRAMS:,} got a reply, the others were lost")


async def reply_source_address(ctx: ServerContext) -> Note | None:
    """Send a datagram to another address of this machine, and check the source address of the reply."""
    if ctx.server.program is None or ctx.server.endpoint.host != "127.0.0.1":
        return Note(Verdict.SKIP, "a second address is known only for a server that was started here")
    port = ctx.server.endpoint.port
    probe = await ctx.connect("probe", endpoint=ctx.server.endpoint.with_host(_SECOND_ADDRESS))
    await probe.send(ctx.message(1))
    try:
        await probe.receive(0.2)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return Note(Verdict.SKIP, "the server is bound to one address")
    except TimeoutError:
        pass
    loop = asyncio.get_running_loop()
    with ctx.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        ctx.transcript.add("client", f"sends {quote_bytes(ctx.message(2))} to {_SECOND_ADDRESS}#{port}")
        for resends_left in range(ctx.contract.max_resends, -1, -1):
            sock.sendto(ctx.message(2), (_SECOND_ADDRESS, port))
            limit = probe.resend_interval if resends_left else ctx.timeout
            try:
                data, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, 65_536), limit)
                break
            except TimeoutError:
                if not resends_left:
                    happened = f"nothing was received within {ctx.timeout:g} s"
                    raise CheckFailed("a reply", happened, timed_out=True) from None
    ctx.transcript.add("client", f"receives {quote_bytes(data)} from {sender[0]}#{sender[1]}")
    if sender != (_SECOND_ADDRESS, port):
        happened = f"it comes from {sender[0]}#{sender[1]}: a connected client does not receive it"
        raise CheckFailed(f"a reply from {_SECOND_ADDRESS}#{port}, where the request went", happened)
    return None


async def malformed_datagrams(ctx: ServerContext) -> Note | None:
    """Send datagrams that are neither text nor messages of the contract."""
    client = await ctx.connect("stranger")
    for data in (b"\xff\xfe\xfd", b"\x00" * 8, b"\xc3", bytes(range(256)), b"%s%n%s%n"):
        await client.send(data)
    await asyncio.sleep(0.05)
    await ctx.expect_still_served("datagrams that are not messages")
    return None


async def binary_datagram(ctx: ServerContext) -> Note | None:
    """Send NUL, 0xFF and other bytes that are not text."""
    client = await ctx.connect()
    await exchange(ctx, client, b"nul \x00 and ff \xff " + bytes(range(1, 32)) + bytes(range(127, 256)))
    return None


async def sigterm(ctx: ServerContext) -> Note | None:
    """Send SIGTERM."""
    await ctx.expect_served("first")
    await ctx.expect_stop()
    return None


async def idle_cpu(ctx: ServerContext) -> Note | None:
    """Send no requests."""
    await ctx.expect_served("first")
    await asyncio.sleep(0.5)
    await ctx.expect_no_busy_loop()
    return None
