"""Stimuli for datagram clients: the checker plays servers with lost, late, duplicate or no replies.

The table is in `datagram_client_table.py`. Each stimulus returns None for PASS, returns a Note for another
verdict, and raises CheckFailed for FAIL.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.client_under_test import ClientContext
from bothends.check.transcript import quote_bytes
from bothends.endpoints import Endpoint

_UDP_SEGMENT: Final = 103  # linux/udp.h


def _bind_and_start(ctx: ClientContext, messages: Sequence[bytes]) -> tuple[socket.socket, Endpoint]:
    sock, endpoint = ctx.listen()
    ctx.start_client(endpoint, messages)
    return sock, endpoint


async def one_message(ctx: ClientContext) -> Note | None:
    """Reply to one datagram."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    received, sender = await ctx.expect_datagram(sock, message)
    reply = ctx.reply(received).sample
    ctx.send_datagram(sock, reply, sender)
    await ctx.expect_output(reply)
    await ctx.expect_success()
    ctx.expect_no_surplus_nul(reply)
    return None


async def lost_reply(ctx: ClientContext) -> Note | None:
    """Do not reply to the first request, but to a retransmission, if there is one."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    await ctx.expect_datagram(sock, message)
    ctx.transcript.add("server", "its reply is lost")
    limit = ctx.contract.client.seconds + ctx.timeout
    retransmission = asyncio.ensure_future(ctx.receive_datagram(sock, limit))
    failure = asyncio.ensure_future(ctx.expect_clean_failure("a lost reply", limit))
    try:
        await asyncio.wait((retransmission, failure), return_when=asyncio.FIRST_COMPLETED)
        if retransmission.done() and not retransmission.exception():
            received, sender = retransmission.result()
            ctx.send_datagram(sock, ctx.reply(received).sample, sender)
            failure.cancel()
            await ctx.expect_output(ctx.reply(received).sample)
            await ctx.expect_success()
            return None
        await failure
    finally:
        for task in (retransmission, failure):
            task.cancel()
        await asyncio.gather(retransmission, failure, return_exceptions=True)
    return None


async def silent_server(ctx: ClientContext) -> Note | None:
    """Never reply."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    await ctx.expect_datagram(sock, message)
    ctx.transcript.add("server", "does not reply")
    await ctx.expect_clean_failure("a missing reply", ctx.contract.client.seconds + ctx.timeout)
    return None


async def port_unreachable(ctx: ClientContext) -> Note | None:
    """Start the client with a closed port. A connected socket reports the ICMP error, any other does not."""
    sock, endpoint = ctx.listen()
    sock.close()
    ctx.start_client(endpoint, ctx.messages())
    await ctx.expect_clean_failure("an unreachable port", ctx.contract.client.seconds + ctx.timeout)
    return None


async def duplicate_reply(ctx: ClientContext) -> Note | None:
    """Send the first reply twice, then reply to the second message."""
    messages = ctx.messages(2)
    sock, _ = _bind_and_start(ctx, messages)
    received, sender = await ctx.expect_datagram(sock, messages[0])
    await _send_duplicate_reply(ctx, sock, ctx.reply(received).sample, (sender, sender), messages)
    return None


async def late_reply(ctx: ClientContext) -> Note | None:
    """Wait for a retransmission, and reply to both requests."""
    messages = ctx.messages(2)
    sock, _ = _bind_and_start(ctx, messages)
    received, first_sender = await ctx.expect_datagram(sock, messages[0])
    ctx.transcript.add("server", "delays its reply")
    try:
        _, second_sender = await ctx.receive_datagram(sock, ctx.contract.client.seconds)
    except TimeoutError:
        return Note(Verdict.SKIP, "the client does not retransmit")
    reply = ctx.reply(received).sample
    await _send_duplicate_reply(ctx, sock, reply, (first_sender, second_sender), messages)
    return None


async def _send_duplicate_reply(
    ctx: ClientContext, sock: socket.socket, first: bytes, senders: Sequence[Any], messages: Sequence[bytes]
) -> None:
    """Send the first reply to both senders, then the second reply to the next message."""
    # Both must have arrived when the client wakes up. If the second arrives later, even a correct client may
    # print it as the reply to its next message. So that failure counts as a timeout, and the case is retried.
    if senders[0] != senders[1] or not _send_two_at_once(sock, first, senders[0]):
        for sender in senders:
            sock.sendto(first, sender)
    ctx.transcript.add("server", f"sends {quote_bytes(first)} twice")
    received, sender = messages[0], None
    while received.rstrip(b"\r\n") == messages[0]:  # on a busy machine the client may have retransmitted
        try:
            received, sender = await ctx.receive_datagram(sock)
        except TimeoutError:
            raise CheckFailed(
                f"the client to send {quote_bytes(messages[1])}", "it did not", timed_out=True,
                cause="sends the first line of its input only",
            ) from None  # fmt: skip
    if received.rstrip(b"\r\n") != messages[1]:
        raise CheckFailed(
            f"the client to send {quote_bytes(messages[1])}", f"it sent {quote_bytes(received)}"
        )
    second = ctx.reply(received).sample
    with suppress(TimeoutError):
        while True:  # a client that took the wrong reply may retransmit, which is not a fault yet
            ctx.send_datagram(sock, second, sender)
            _, sender = await ctx.receive_datagram(sock, 0.2)
    await ctx.expect_output(first, second)
    assert ctx.program is not None
    if ctx.program.stdout.data.count(first.rstrip()) > 1:
        raise CheckFailed(
            "each message to get its own reply",
            f"the client printed {quote_bytes(first)} twice, as the reply to both messages",
            timed_out=True,
        )
    await ctx.expect_success()


def _send_two_at_once(sock: socket.socket, data: bytes, address: Any) -> bool:
    """Send two datagrams in one call, because between two calls the client may run.

    Uses UDP_SEGMENT (udp(7), Linux 4.18). Returns: False if it is not supported.
    """
    if sock.family == socket.AF_UNIX:
        return False
    segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(data)))
    try:
        sock.sendmsg([data, data], [segment], 0, address)
    except OSError:
        return False
    return True


async def reply_from_stranger(ctx: ClientContext) -> Note | None:
    """Send a datagram from another socket before the reply."""
    [message] = ctx.messages()
    sock, endpoint = _bind_and_start(ctx, [message])
    received, sender = await ctx.expect_datagram(sock, message)
    wrong = b"WRONG: FROM A STRANGER"
    with ctx.new_socket(endpoint.host, socket.SOCK_DGRAM) as stranger:
        ctx.send_datagram(stranger, wrong, sender, "stranger")
    await asyncio.sleep(0.1)
    reply = ctx.reply(received).sample
    ctx.send_datagram(sock, reply, sender)
    await ctx.expect_output(reply)
    assert ctx.program is not None
    if wrong in ctx.program.stdout.data:
        raise CheckFailed(
            "the client to ignore a datagram from a stranger", f"it printed {quote_bytes(wrong)}"
        )
    await ctx.expect_success()
    return None
