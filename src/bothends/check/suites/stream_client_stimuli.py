"""Stimuli for stream clients: the checker plays servers that reply well, slowly, partly or never.

The table is in `stream_client_table.py`. Each stimulus returns None for PASS, returns a Note for another
verdict, and raises CheckFailed for FAIL.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.client_under_test import ClientContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import quote_bytes

_BYTE_INTERVAL: Final = 0.02  # seconds
_SMALL_BUFFER: Final = 4096  # bytes: a buffer that is soon full
_MANY_MESSAGES: Final = 8000  # messages of 1,000 bytes: more than all buffers between two peers hold
_LONG_MESSAGE: Final = 4 << 20  # bytes: more than all buffers hold
_MAX_ARGUMENT: Final = 100_000  # bytes: an argument of a command has at most 131,071 (execve(2))
_TWO_ADDRESS_NAME: Final = "two-addresses.check"


async def _start_and_accept(
    ctx: ClientContext, messages: Sequence[bytes], *, rcvbuf: int | None = None
) -> RecordedSocket:
    """Start the client, and accept its connection."""
    listener, endpoint = ctx.listen(rcvbuf=rcvbuf)
    ctx.start_client(endpoint, messages)
    return await ctx.accept(listener)


async def _start_and_receive(
    ctx: ClientContext, message: bytes | None = None
) -> tuple[RecordedSocket, bytes]:
    """Start the client with one message, and receive it. Returns: the connection, and the correct reply."""
    if message is None:
        [message] = ctx.messages()
    conn = await _start_and_accept(ctx, [message])
    return conn, await _receive_request(ctx, conn, message)


async def _receive_request(ctx: ClientContext, conn: RecordedSocket, message: bytes) -> bytes:
    """Receive a message, unless the server speaks first. Returns: the correct reply."""
    if ctx.contract.speaks_first:
        return ctx.reply(b"").sample
    return ctx.reply(await ctx.expect_message(conn, message)).sample


async def _close_and_expect_success(ctx: ClientContext, conn: RecordedSocket, *replies: bytes) -> None:
    """Close as the contract says, at once or after the client; then check its output and its exit status."""
    if ctx.contract.persistent:
        await conn.wait_closed_by_peer(ctx.timeout)
    conn.close()
    await ctx.expect_output(*replies)
    await ctx.expect_success()


async def one_message(ctx: ClientContext) -> Note | None:
    """Reply to one message."""
    conn, reply = await _start_and_receive(ctx)
    await conn.send(reply)
    await _close_and_expect_success(ctx, conn, reply)
    ctx.expect_no_surplus_nul(reply)
    return None


async def several_messages(ctx: ClientContext) -> Note | None:
    """Reply to each of three messages."""
    messages = ctx.messages(3)
    conn = await _start_and_accept(ctx, messages)
    replies = []
    for message in messages:
        received = await ctx.expect_message(conn, message)
        replies.append(ctx.reply(received).sample)
        await conn.send(replies[-1])
    await _close_and_expect_success(ctx, conn, *replies)
    return None


async def bytewise_reply(ctx: ClientContext) -> Note | None:
    """Send the reply byte by byte."""
    conn, reply = await _start_and_receive(ctx)
    await conn.send_pieces([reply[at : at + 1] for at in range(len(reply))], _BYTE_INTERVAL)
    await _close_and_expect_success(ctx, conn, reply)
    return None


async def split_character(ctx: ClientContext) -> Note | None:
    """Split the reply inside a character of three bytes."""
    conn, reply = await _start_and_receive(ctx, "5 € in 日本".encode())
    at = reply.index("€".encode()) + 1
    await conn.send_pieces([reply[:at], reply[at : at + 1], reply[at + 1 :]], 0.05)
    await _close_and_expect_success(ctx, conn, reply)
    return None


async def long_reply(ctx: ClientContext) -> Note | None:
    """Send a reply that is longer than the buffers of most examples."""
    [message] = ctx.messages(1, min(6000, ctx.contract.max_message_size - 1))
    conn, reply = await _start_and_receive(ctx, message)
    await conn.send(reply)
    await _close_and_expect_success(ctx, conn, reply)
    return None


async def two_in_one(ctx: ClientContext) -> Note | None:
    """Send both replies in one segment."""
    messages = ctx.messages(2)
    conn = await _start_and_accept(ctx, messages)
    received = [await ctx.expect_message(conn, messages[0])]
    timeout, conn.timeout = conn.timeout, 0.2
    try:
        received.append(await ctx.expect_message(conn, messages[1]))
    except CheckFailed as failure:
        if failure.timed_out:
            return Note(Verdict.SKIP, "the client waits for each reply before it sends more")
        raise
    finally:
        conn.timeout = timeout
    replies = [ctx.reply(each).sample for each in received]
    await conn.send(b"".join(replies))
    await _close_and_expect_success(ctx, conn, *replies)
    return None


async def slow_server(ctx: ClientContext) -> Note | None:
    """Read a large input slowly, with a small buffer."""
    if ctx.contract.client.several:
        messages = ctx.messages(_MANY_MESSAGES // 8, 1000)
    else:
        messages = ctx.messages(1, min(60_000, ctx.contract.max_message_size - 1))
    conn = await _start_and_accept(ctx, messages, rcvbuf=_SMALL_BUFFER)
    conn.read_interval = 0.001
    for message in messages:
        received = await ctx.expect_message(conn, message)
        await conn.send(ctx.reply(received).sample)
    await _close_and_expect_success(ctx, conn, ctx.reply(messages[-1]).sample[-500:])
    return None


async def large_echo(ctx: ClientContext) -> Note | None:
    """Reply to more messages than all buffers hold, and do not read while a reply is unread."""
    messages = ctx.messages(_MANY_MESSAGES, 1000)
    conn = await _start_and_accept(ctx, messages, rcvbuf=_SMALL_BUFFER)
    conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
    try:
        for message in messages:
            received = await ctx.expect_message(conn, message)
            await conn.send(ctx.reply(received).sample)
    except CheckFailed as failure:
        raise CheckFailed(
            "the client to read replies while it sends",
            f"{failure.happened}: each peer waits for the other to read",
            timed_out=failure.timed_out,
        ) from failure
    await _close_and_expect_success(ctx, conn, ctx.reply(messages[-1]).sample)
    return None


async def truncated_reply(ctx: ClientContext) -> Note | None:
    """Close in the middle of the reply."""
    conn, reply = await _start_and_receive(ctx)
    await conn.send(reply[: len(reply) // 2])
    conn.close()
    await ctx.expect_clean_failure("a truncated reply", success_means="accepts a truncated reply")
    return None


async def no_reply(ctx: ClientContext) -> Note | None:
    """Receive the message, and close without a reply."""
    conn, _ = await _start_and_receive(ctx)
    conn.close()
    await ctx.expect_clean_failure("a close without a reply")
    return None


async def reset_instead_of_reply(ctx: ClientContext) -> Note | None:
    """Reset the connection instead of replying."""
    conn, _ = await _start_and_receive(ctx)
    conn.reset()
    await ctx.expect_clean_failure("a reset connection")
    return None


async def server_closes_mid_message(ctx: ClientContext) -> Note | None:
    """Shut down the write side and close while the client is in the middle of its message."""
    [message] = ctx.messages(1, _LONG_MESSAGE if ctx.contract.client.input == "stdin" else _MAX_ARGUMENT)
    conn = await _start_and_accept(ctx, [message], rcvbuf=_SMALL_BUFFER)
    await conn.receive(ctx.timeout, _SMALL_BUFFER)
    conn.shutdown_write()
    conn.close()  # with unread data, so that the kernel sends RST (RFC 1122, 4.2.2.13)
    await ctx.expect_clean_failure(
        "a server that closed before it had read the message",
        success_means="takes EOF for the reply, or ignores the result of send()",
    )
    return None


async def connection_refused(ctx: ClientContext) -> Note | None:
    """Start the client with a port that has no listener."""
    listener, endpoint = ctx.listen()
    listener.close()
    ctx.start_client(endpoint, ctx.messages())
    ctx.transcript.add("check", "does not listen")
    await ctx.expect_clean_failure("a refused connection")
    return None


async def silent_server(ctx: ClientContext) -> Note | None:
    """Receive the message, and never reply."""
    conn, _ = await _start_and_receive(ctx)
    limit = ctx.contract.client.seconds
    conn.note("does not reply")
    await ctx.expect_clean_failure("a missing reply", limit + ctx.timeout)
    return None


async def half_close(ctx: ClientContext) -> Note | None:
    """Reply only when the client has shut down its write side."""
    messages = ctx.messages(2)
    conn = await _start_and_accept(ctx, messages)
    received = [await ctx.expect_message(conn, message) for message in messages]
    try:
        rest = await conn.receive_until_eof()
    except CheckFailed as failure:
        raise CheckFailed(
            "the client to finish sending: shutdown(SHUT_WR)", failure.happened, timed_out=failure.timed_out
        ) from failure
    if rest:
        raise CheckFailed("EOF after the client's messages", f"it sent {quote_bytes(rest)} more")
    replies = [ctx.reply(each).sample for each in received]
    await conn.send(b"".join(replies))
    conn.close()
    await ctx.expect_output(*replies)
    await ctx.expect_success()
    return None


async def second_address(ctx: ClientContext) -> Note | None:
    """Start the client with a name of two addresses, and listen at the second only."""
    reachable = await ctx.add_two_address_host(_TWO_ADDRESS_NAME)
    if reachable is None:
        return Note(Verdict.SKIP, "the system does not allow a private /etc/hosts for the client")
    [message] = ctx.messages()
    listener, endpoint = ctx.listen(reachable)
    ctx.start_client(endpoint, [message], host=_TWO_ADDRESS_NAME)
    conn = await ctx.accept(listener)
    reply = await _receive_request(ctx, conn, message)
    await conn.send(reply)
    await _close_and_expect_success(ctx, conn, reply)
    return None
