"""What is done to a client by the server that we play: over streams first, then by datagrams.

The tables are in `stream_client.py` and `datagram_client.py`. Everything here returns for PASS, gives a
Note, or raises Failed.
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
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import quote_bytes
from bothends.endpoints import Endpoint

_BYTE_INTERVAL: Final = 0.02
_SMALL_BUFFER: Final = 4096  # bytes: a buffer that is soon full
_MANY_MESSAGES: Final = 8000  # messages of 1,000 bytes: more than all the buffers between two ends hold
_LONG_MESSAGE: Final = 4 << 20  # bytes: more than all buffers hold
_MAX_ARGUMENT: Final = 100_000  # bytes: a word of a command may have 131,071 (execve(2))
_UDP_SEGMENT: Final = 103  # linux/udp.h
_TWO_ADDRESS_NAME: Final = "two-addresses.check"


async def _start_and_accept(
    ctx: ClientContext, messages: Sequence[bytes], *, rcvbuf: int | None = None
) -> RecordedSocket:
    """Start the client and take its connection."""
    listener, endpoint = ctx.listen(rcvbuf=rcvbuf)
    ctx.start_client(endpoint, messages)
    return await ctx.accept(listener)


async def _start_and_receive(
    ctx: ClientContext, message: bytes | None = None
) -> tuple[RecordedSocket, bytes]:
    """Start the client with one message and hear it; the connection, and the right reply."""
    if message is None:
        [message] = ctx.messages()
    talk = await _start_and_accept(ctx, [message])
    return talk, ctx.reply(await ctx.expect_message(talk, message)).sample


async def _close_and_expect_success(ctx: ClientContext, conn: RecordedSocket, *replies: bytes) -> None:
    """A good end: by the contract the server closes, or waits until the client has. Then the client has
    shown the replies, and exits with 0.
    """
    if ctx.contract.persistent:
        await conn.wait_closed_by_peer(ctx.timeout)
    conn.close()
    await ctx.expect_output(*replies)
    await ctx.expect_success()


async def one_message(ctx: ClientContext) -> Note | None:
    """One message is answered, as it should be."""
    talk, reply = await _start_and_receive(ctx)
    await talk.send(reply)
    await _close_and_expect_success(ctx, talk, reply)
    _expect_no_buffer_rest(ctx, reply)
    return None


def _expect_no_buffer_rest(ctx: ClientContext, reply: bytes) -> None:
    """Of a buffer it shows what was filled: a NUL that the reply hasn't is from the rest. Raises Failed."""
    assert ctx.program is not None
    printed = ctx.program.stdout.data
    if ctx.contract.client.shows and b"\0" in printed and b"\0" not in reply:
        raise CheckFailed(
            f"{quote_bytes(reply)} on standard output, and no NUL", f"it printed {quote_bytes(printed)}"
        )


async def several_messages(ctx: ClientContext) -> Note | None:
    """Three messages, each answered."""
    messages = ctx.messages(3)
    talk = await _start_and_accept(ctx, messages)
    replies = []
    for message in messages:
        heard = await ctx.expect_message(talk, message)
        replies.append(ctx.reply(heard).sample)
        await talk.send(replies[-1])
    await _close_and_expect_success(ctx, talk, *replies)
    return None


async def bytewise_reply(ctx: ClientContext) -> Note | None:
    """The reply comes a byte at a time."""
    talk, reply = await _start_and_receive(ctx)
    await talk.send_pieces([reply[at : at + 1] for at in range(len(reply))], _BYTE_INTERVAL)
    await _close_and_expect_success(ctx, talk, reply)
    return None


async def split_character(ctx: ClientContext) -> Note | None:
    """The reply is cut inside a character of three bytes."""
    talk, reply = await _start_and_receive(ctx, "5 € in 日本".encode())
    at = reply.index("€".encode()) + 1
    await talk.send_pieces([reply[:at], reply[at : at + 1], reply[at + 1 :]], 0.05)
    await _close_and_expect_success(ctx, talk, reply)
    return None


async def long_reply(ctx: ClientContext) -> Note | None:
    """A reply that is longer than the buffers of most examples."""
    [message] = ctx.messages(1, min(6000, ctx.contract.max_message_size - 1))
    talk, reply = await _start_and_receive(ctx, message)
    await talk.send(reply)
    await _close_and_expect_success(ctx, talk, reply)
    return None


async def two_in_one(ctx: ClientContext) -> Note | None:
    """Both replies come in one segment."""
    messages = ctx.messages(2)
    talk = await _start_and_accept(ctx, messages)
    heard = [await ctx.expect_message(talk, messages[0])]
    patience, talk.timeout = talk.timeout, 0.2
    try:
        heard.append(await ctx.expect_message(talk, messages[1]))
    except CheckFailed as failed:
        if failed.timed_out:
            return Note(Verdict.SKIP, "it waits for each reply before it sends more")
        raise
    finally:
        talk.timeout = patience
    replies = [ctx.reply(each).sample for each in heard]
    await talk.send(b"".join(replies))
    await _close_and_expect_success(ctx, talk, *replies)
    return None


async def slow_server(ctx: ClientContext) -> Note | None:
    """We read slowly, by little buffers, and the input is large."""
    if ctx.contract.client.several:
        messages = ctx.messages(_MANY_MESSAGES // 8, 1000)
    else:
        messages = ctx.messages(1, min(60_000, ctx.contract.max_message_size - 1))
    talk = await _start_and_accept(ctx, messages, rcvbuf=_SMALL_BUFFER)
    talk.read_interval = 0.001
    for message in messages:
        heard = await ctx.expect_message(talk, message)
        await talk.send(ctx.reply(heard).sample)
    await _close_and_expect_success(ctx, talk, ctx.reply(messages[-1]).sample[-500:])
    return None


async def large_echo(ctx: ClientContext) -> Note | None:
    """We read no further while our replies aren't taken, and there are more than buffers hold."""
    messages = ctx.messages(_MANY_MESSAGES, 1000)
    talk = await _start_and_accept(ctx, messages, rcvbuf=_SMALL_BUFFER)
    talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
    try:
        for message in messages:
            heard = await ctx.expect_message(talk, message)
            await talk.send(ctx.reply(heard).sample)
    except CheckFailed as failed:
        raise CheckFailed(
            "the client to read replies while it sends",
            f"{failed.happened}: each end waits for the other to read",
            timed_out=failed.timed_out,
        ) from failed
    await _close_and_expect_success(ctx, talk, ctx.reply(messages[-1]).sample)
    return None


async def truncated_reply(ctx: ClientContext) -> Note | None:
    """We close in the middle of the reply."""
    talk, reply = await _start_and_receive(ctx)
    await talk.send(reply[: len(reply) // 2])
    talk.close()
    await ctx.expect_clean_failure("a reply that breaks off")
    return None


async def no_reply(ctx: ClientContext) -> Note | None:
    """We take the connection, hear the message and close without a word."""
    talk, _ = await _start_and_receive(ctx)
    talk.close()
    await ctx.expect_clean_failure("a server that closes without a reply")
    return None


async def reset_instead_of_reply(ctx: ClientContext) -> Note | None:
    """We reset the connection in place of a reply."""
    talk, _ = await _start_and_receive(ctx)
    talk.reset()
    await ctx.expect_clean_failure("a connection that was reset")
    return None


async def server_closes_mid_message(ctx: ClientContext) -> Note | None:
    """We finish sending and close while the client is in the middle of its message."""
    [message] = ctx.messages(1, _LONG_MESSAGE if ctx.contract.client.input == "stdin" else _MAX_ARGUMENT)
    talk = await _start_and_accept(ctx, [message], rcvbuf=_SMALL_BUFFER)
    await talk.receive(ctx.timeout, _SMALL_BUFFER)
    talk.shutdown_write()
    talk.close()  # with much unread: the kernel sends RST (RFC 1122, 4.2.2.13)
    await ctx.expect_clean_failure("a server that closes before it has read the message")
    return None


async def connection_refused(ctx: ClientContext) -> Note | None:
    """Nobody listens where it is told to connect."""
    listener, endpoint = ctx.listen()
    listener.close()
    ctx.start_client(endpoint, ctx.messages())
    ctx.transcript.add("check", "listens nowhere")
    await ctx.expect_clean_failure("a connection that is refused")
    return None


async def silent_server(ctx: ClientContext) -> Note | None:
    """We never answer."""
    talk, _ = await _start_and_receive(ctx)
    limit = ctx.contract.client.seconds
    talk.note("says nothing")
    await ctx.expect_clean_failure("a server that never answers", limit + ctx.timeout)
    return None


async def half_close(ctx: ClientContext) -> Note | None:
    """We answer when the client has finished sending, and not before."""
    messages = ctx.messages(2)
    talk = await _start_and_accept(ctx, messages)
    heard = [await ctx.expect_message(talk, message) for message in messages]
    try:
        rest = await talk.receive_until_eof()
    except CheckFailed as failed:
        raise CheckFailed(
            "the client to finish sending: shutdown(SHUT_WR)", failed.happened, timed_out=failed.timed_out
        ) from failed
    if rest:
        raise CheckFailed("the end of its messages", f"it sent {quote_bytes(rest)} more")
    replies = [ctx.reply(each).sample for each in heard]
    await talk.send(b"".join(replies))
    talk.close()
    await ctx.expect_output(*replies)
    await ctx.expect_success()
    return None


async def second_address(ctx: ClientContext) -> Note | None:
    """The name has two addresses, and at the first nobody listens."""
    alive = await ctx.add_two_address_host(_TWO_ADDRESS_NAME)
    if alive is None:
        return Note(Verdict.SKIP, "the system doesn't let us give the client another /etc/hosts")
    [message] = ctx.messages()
    listener, endpoint = ctx.listen(alive)
    ctx.start_client(endpoint, [message], host=_TWO_ADDRESS_NAME)
    talk = await ctx.accept(listener)
    heard = await ctx.expect_message(talk, message)
    await talk.send(ctx.reply(heard).sample)
    await _close_and_expect_success(ctx, talk, ctx.reply(heard).sample)
    return None


# Datagrams ---------------------------------------------------------------------------------------


def _bind_and_start(ctx: ClientContext, messages: Sequence[bytes]) -> tuple[socket.socket, Endpoint]:
    sock, endpoint = ctx.listen()
    ctx.start_client(endpoint, messages)
    return sock, endpoint


async def datagram_one_message(ctx: ClientContext) -> Note | None:
    """One datagram is answered, as it should be."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    heard, sender = await ctx.expect_datagram(sock, message)
    reply = ctx.reply(heard).sample
    ctx.send_datagram(sock, reply, sender)
    await ctx.expect_output(reply)
    await ctx.expect_success()
    _expect_no_buffer_rest(ctx, reply)
    return None


async def datagram_lost_reply(ctx: ClientContext) -> Note | None:
    """The first reply is lost. If the client asks again, it is answered."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    await ctx.expect_datagram(sock, message)
    ctx.transcript.add("server", "its reply is lost")
    limit = ctx.contract.client.seconds + ctx.timeout
    again = asyncio.ensure_future(ctx.receive_datagram(sock, limit))
    ended = asyncio.ensure_future(ctx.expect_clean_failure("a reply that is lost", limit))
    try:
        await asyncio.wait((again, ended), return_when=asyncio.FIRST_COMPLETED)
        if again.done() and not again.exception():
            heard, sender = again.result()
            ctx.send_datagram(sock, ctx.reply(heard).sample, sender)
            ended.cancel()
            await ctx.expect_output(ctx.reply(heard).sample)
            await ctx.expect_success()
            return None
        await ended
    finally:
        for task in (again, ended):
            task.cancel()
        await asyncio.gather(again, ended, return_exceptions=True)
    return None


async def datagram_silent_server(ctx: ClientContext) -> Note | None:
    """Nothing is ever answered, however often it asks."""
    [message] = ctx.messages()
    sock, _ = _bind_and_start(ctx, [message])
    await ctx.expect_datagram(sock, message)
    ctx.transcript.add("server", "says nothing")
    await ctx.expect_clean_failure("a server that never answers", ctx.contract.client.seconds + ctx.timeout)
    return None


async def datagram_port_unreachable(ctx: ClientContext) -> Note | None:
    """Nobody is at that port. A socket that is connected learns it (ICMP); others wait in vain."""
    sock, endpoint = ctx.listen()
    sock.close()
    ctx.start_client(endpoint, ctx.messages())
    await ctx.expect_clean_failure("a port where nobody is", ctx.contract.client.seconds + ctx.timeout)
    return None


async def datagram_duplicate_reply(ctx: ClientContext) -> Note | None:
    """The first reply comes twice; then the client asks again."""
    messages = ctx.messages(2)
    sock, _ = _bind_and_start(ctx, messages)
    heard, sender = await ctx.expect_datagram(sock, messages[0])
    await _send_duplicate_reply(ctx, sock, ctx.reply(heard).sample, (sender, sender), messages)
    return None


async def datagram_late_reply(ctx: ClientContext) -> Note | None:
    """The client has to ask again, and then both are answered."""
    messages = ctx.messages(2)
    sock, _ = _bind_and_start(ctx, messages)
    heard, first = await ctx.expect_datagram(sock, messages[0])
    ctx.transcript.add("server", "takes its time")
    try:
        _, second = await ctx.receive_datagram(sock, ctx.contract.client.seconds)
    except TimeoutError:
        return Note(Verdict.SKIP, "it doesn't ask again")
    await _send_duplicate_reply(ctx, sock, ctx.reply(heard).sample, (first, second), messages)
    return None


async def _send_duplicate_reply(
    ctx: ClientContext, sock: socket.socket, first: bytes, senders: Sequence[Any], messages: Sequence[bytes]
) -> None:
    """Two times the same reply, and then one to the next message. Raises Failed."""
    # Both have to be there when it wakes. If we lose that race it shows the first reply twice, and may be
    # right: so this failure is tried again, as one that came too late is.
    if senders[0] != senders[1] or not _send_two_at_once(sock, first, senders[0]):
        for sender in senders:
            sock.sendto(first, sender)
    ctx.transcript.add("server", f"sends {quote_bytes(first)} twice")
    heard, sender = messages[0], None
    while heard.rstrip(b"\r\n") == messages[0]:  # on a busy machine it may have asked once more before that
        try:
            heard, sender = await ctx.receive_datagram(sock)
        except TimeoutError:
            raise CheckFailed(
                f"the client to send {quote_bytes(messages[1])}", "nothing came", timed_out=True
            ) from None
    if heard.rstrip(b"\r\n") != messages[1]:
        raise CheckFailed(f"the client to send {quote_bytes(messages[1])}", f"it sent {quote_bytes(heard)}")
    second = ctx.reply(heard).sample
    with suppress(TimeoutError):
        while True:  # whoever matched the wrong one may ask again: that is no mistake yet
            ctx.send_datagram(sock, second, sender)
            _, sender = await ctx.receive_datagram(sock, 0.2)
    await ctx.expect_output(first, second)
    assert ctx.program is not None
    if ctx.program.stdout.data.count(first.rstrip()) > 1:
        raise CheckFailed(
            "each reply with its own message",
            f"it shows {quote_bytes(first)} twice, as if for both",
            timed_out=True,
        )
    await ctx.expect_success()


def _send_two_at_once(sock: socket.socket, data: bytes, address: Any) -> bool:
    """Send two datagrams by one call: between two of ours, who waits for the first may get to run.

    By UDP_SEGMENT (udp(7), Linux 4.18); False where there is none.
    """
    if sock.family == socket.AF_UNIX:
        return False
    segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(data)))
    try:
        sock.sendmsg([data, data], [segment], 0, address)
    except OSError:
        return False
    return True


async def datagram_from_stranger(ctx: ClientContext) -> Note | None:
    """Somebody else's datagram comes before the reply."""
    [message] = ctx.messages()
    sock, endpoint = _bind_and_start(ctx, [message])
    heard, sender = await ctx.expect_datagram(sock, message)
    wrong = b"WRONG: FROM A STRANGER"
    with socket.socket(sock.family, socket.SOCK_DGRAM) as stranger:
        if endpoint.host:
            stranger.bind((endpoint.host, 0))
        ctx.send_datagram(stranger, wrong, sender, "stranger")
    await asyncio.sleep(0.1)
    reply = ctx.reply(heard).sample
    ctx.send_datagram(sock, reply, sender)
    await ctx.expect_output(reply)
    assert ctx.program is not None
    if wrong in ctx.program.stdout.data:
        raise CheckFailed("a datagram from a stranger to be ignored", f"it shows {quote_bytes(wrong)}")
    await ctx.expect_success()
    return None
