"""What is done to a client by the server that we play: over streams first, then by datagrams.

The tables are in `stream_client.py` and `datagram_client.py`. Everything here returns for PASS, gives a
Remark, or raises Failed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import Failed, Remark, Verdict
from bothends.check.subjects.client_under_test import ClientTrial
from bothends.check.subjects.recorded_socket import Talk
from bothends.check.transcript import shown
from bothends.endpoints import Endpoint

_DRIP: Final = 0.02
_SMALL: Final = 4096  # bytes: a buffer that is soon full
_LOT: Final = 8000  # messages of 1,000 bytes: more than all the buffers between two ends hold
_LONG: Final = 4 << 20  # bytes: more than all buffers hold
_LONGEST_WORD: Final = 100_000  # bytes: a word of a command may have 131,071 (execve(2))
_UDP_SEGMENT: Final = 103  # linux/udp.h
_NAME: Final = "two-addresses.check"


async def _begin(trial: ClientTrial, messages: Sequence[bytes], *, buffer: int | None = None) -> Talk:
    """Start the client and take its connection."""
    listener, endpoint = trial.listen(buffer=buffer)
    trial.run(endpoint, messages)
    return await trial.accept(listener)


async def _asked(trial: ClientTrial, message: bytes | None = None) -> tuple[Talk, bytes]:
    """Start the client with one message and hear it; the connection, and the right reply."""
    if message is None:
        [message] = trial.messages()
    talk = await _begin(trial, [message])
    return talk, trial.reply(await trial.hear_message(talk, message)).sample


async def _end_well(trial: ClientTrial, talk: Talk, *replies: bytes) -> None:
    """A good end: by the contract the server closes, or waits until the client has. Then the client has
    shown the replies, and exits with 0.
    """
    if trial.contract.persistent:
        await talk.is_over(trial.patience)
    talk.close()
    await trial.shows(*replies)
    await trial.exits_well()


async def one_message(trial: ClientTrial) -> Remark | None:
    """One message is answered, as it should be."""
    talk, reply = await _asked(trial)
    await talk.say(reply)
    await _end_well(trial, talk, reply)
    _shows_no_more(trial, reply)
    return None


def _shows_no_more(trial: ClientTrial, reply: bytes) -> None:
    """Of a buffer it shows what was filled: a NUL that the reply hasn't is from the rest. Raises Failed."""
    assert trial.program is not None
    printed = trial.program.stdout.data
    if trial.contract.client.shows and b"\0" in printed and b"\0" not in reply:
        raise Failed(f"{shown(reply)} on standard output, and no NUL", f"it printed {shown(printed)}")


async def several(trial: ClientTrial) -> Remark | None:
    """Three messages, each answered."""
    messages = trial.messages(3)
    talk = await _begin(trial, messages)
    replies = []
    for message in messages:
        heard = await trial.hear_message(talk, message)
        replies.append(trial.reply(heard).sample)
        await talk.say(replies[-1])
    await _end_well(trial, talk, *replies)
    return None


async def dripped(trial: ClientTrial) -> Remark | None:
    """The reply comes a byte at a time."""
    talk, reply = await _asked(trial)
    await talk.say_pieces([reply[at : at + 1] for at in range(len(reply))], _DRIP)
    await _end_well(trial, talk, reply)
    return None


async def split_character(trial: ClientTrial) -> Remark | None:
    """The reply is cut inside a character of three bytes."""
    talk, reply = await _asked(trial, "5 € in 日本".encode())
    at = reply.index("€".encode()) + 1
    await talk.say_pieces([reply[:at], reply[at : at + 1], reply[at + 1 :]], 0.05)
    await _end_well(trial, talk, reply)
    return None


async def long_reply(trial: ClientTrial) -> Remark | None:
    """A reply that is longer than the buffers of most examples."""
    [message] = trial.messages(1, min(6000, trial.contract.longest - 1))
    talk, reply = await _asked(trial, message)
    await talk.say(reply)
    await _end_well(trial, talk, reply)
    return None


async def two_in_one(trial: ClientTrial) -> Remark | None:
    """Both replies come in one segment."""
    messages = trial.messages(2)
    talk = await _begin(trial, messages)
    heard = [await trial.hear_message(talk, messages[0])]
    patience, talk.patience = talk.patience, 0.2
    try:
        heard.append(await trial.hear_message(talk, messages[1]))
    except Failed as failed:
        if failed.late:
            return Remark(Verdict.SKIP, "it waits for each reply before it sends more")
        raise
    finally:
        talk.patience = patience
    replies = [trial.reply(each).sample for each in heard]
    await talk.say(b"".join(replies))
    await _end_well(trial, talk, *replies)
    return None


async def slow_server(trial: ClientTrial) -> Remark | None:
    """We read slowly, by little buffers, and the input is large."""
    if trial.contract.client.several:
        messages = trial.messages(_LOT // 8, 1000)
    else:
        messages = trial.messages(1, min(60_000, trial.contract.longest - 1))
    talk = await _begin(trial, messages, buffer=_SMALL)
    talk.pace = 0.001
    for message in messages:
        heard = await trial.hear_message(talk, message)
        await talk.say(trial.reply(heard).sample)
    await _end_well(trial, talk, trial.reply(messages[-1]).sample[-500:])
    return None


async def large_echo(trial: ClientTrial) -> Remark | None:
    """We read no further while our replies aren't taken, and there are more than buffers hold."""
    messages = trial.messages(_LOT, 1000)
    talk = await _begin(trial, messages, buffer=_SMALL)
    talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL)
    try:
        for message in messages:
            heard = await trial.hear_message(talk, message)
            await talk.say(trial.reply(heard).sample)
    except Failed as failed:
        raise Failed(
            "the client to read replies while it sends",
            f"{failed.happened}: each end waits for the other to read",
            late=failed.late,
        ) from failed
    await _end_well(trial, talk, trial.reply(messages[-1]).sample)
    return None


async def cut_reply(trial: ClientTrial) -> Remark | None:
    """We close in the middle of the reply."""
    talk, reply = await _asked(trial)
    await talk.say(reply[: len(reply) // 2])
    talk.close()
    await trial.fails_well("a reply that breaks off")
    return None


async def closed_at_once(trial: ClientTrial) -> Remark | None:
    """We take the connection, hear the message and close without a word."""
    talk, _ = await _asked(trial)
    talk.close()
    await trial.fails_well("a server that closes without a reply")
    return None


async def reset(trial: ClientTrial) -> Remark | None:
    """We reset the connection in place of a reply."""
    talk, _ = await _asked(trial)
    talk.reset()
    await trial.fails_well("a connection that was reset")
    return None


async def server_gone(trial: ClientTrial) -> Remark | None:
    """We finish sending and close while the client is in the middle of its message."""
    [message] = trial.messages(1, _LONG if trial.contract.client.input == "stdin" else _LONGEST_WORD)
    talk = await _begin(trial, [message], buffer=_SMALL)
    await talk.receive(trial.patience, _SMALL)
    talk.finish()
    talk.close()  # with much unread: the kernel sends RST (RFC 1122, 4.2.2.13)
    await trial.fails_well("a server that closes before it has read the message")
    return None


async def refused(trial: ClientTrial) -> Remark | None:
    """Nobody listens where it is told to connect."""
    listener, endpoint = trial.listen()
    listener.close()
    trial.run(endpoint, trial.messages())
    trial.transcript.add("check", "listens nowhere")
    await trial.fails_well("a connection that is refused")
    return None


async def silent(trial: ClientTrial) -> Remark | None:
    """We never answer."""
    talk, _ = await _asked(trial)
    limit = trial.contract.client.seconds
    talk.note("says nothing")
    await trial.fails_well("a server that never answers", limit + trial.patience)
    return None


async def half_close(trial: ClientTrial) -> Remark | None:
    """We answer when the client has finished sending, and not before."""
    messages = trial.messages(2)
    talk = await _begin(trial, messages)
    heard = [await trial.hear_message(talk, message) for message in messages]
    try:
        rest = await talk.hear_end()
    except Failed as failed:
        raise Failed(
            "the client to finish sending: shutdown(SHUT_WR)", failed.happened, late=failed.late
        ) from failed
    if rest:
        raise Failed("the end of its messages", f"it sent {shown(rest)} more")
    replies = [trial.reply(each).sample for each in heard]
    await talk.say(b"".join(replies))
    talk.close()
    await trial.shows(*replies)
    await trial.exits_well()
    return None


async def second_address(trial: ClientTrial) -> Remark | None:
    """The name has two addresses, and at the first nobody listens."""
    alive = await trial.two_addresses(_NAME)
    if alive is None:
        return Remark(Verdict.SKIP, "the system doesn't let us give the client another /etc/hosts")
    [message] = trial.messages()
    listener, endpoint = trial.listen(alive)
    trial.run(endpoint, [message], host=_NAME)
    talk = await trial.accept(listener)
    heard = await trial.hear_message(talk, message)
    await talk.say(trial.reply(heard).sample)
    await _end_well(trial, talk, trial.reply(heard).sample)
    return None


# Datagrams ---------------------------------------------------------------------------------------


def _begin_datagrams(trial: ClientTrial, messages: Sequence[bytes]) -> tuple[socket.socket, Endpoint]:
    sock, endpoint = trial.listen()
    trial.run(endpoint, messages)
    return sock, endpoint


async def datagram_message(trial: ClientTrial) -> Remark | None:
    """One datagram is answered, as it should be."""
    [message] = trial.messages()
    sock, _ = _begin_datagrams(trial, [message])
    heard, sender = await trial.question(sock, message)
    reply = trial.reply(heard).sample
    trial.send_datagram(sock, reply, sender)
    await trial.shows(reply)
    await trial.exits_well()
    _shows_no_more(trial, reply)
    return None


async def datagram_lost(trial: ClientTrial) -> Remark | None:
    """The first reply is lost. If the client asks again, it is answered."""
    [message] = trial.messages()
    sock, _ = _begin_datagrams(trial, [message])
    await trial.question(sock, message)
    trial.transcript.add("server", "its reply is lost")
    limit = trial.contract.client.seconds + trial.patience
    again = asyncio.ensure_future(trial.datagram(sock, limit))
    ended = asyncio.ensure_future(trial.fails_well("a reply that is lost", limit))
    try:
        await asyncio.wait((again, ended), return_when=asyncio.FIRST_COMPLETED)
        if again.done() and not again.exception():
            heard, sender = again.result()
            trial.send_datagram(sock, trial.reply(heard).sample, sender)
            ended.cancel()
            await trial.shows(trial.reply(heard).sample)
            await trial.exits_well()
            return None
        await ended
    finally:
        for task in (again, ended):
            task.cancel()
        await asyncio.gather(again, ended, return_exceptions=True)
    return None


async def datagram_silent(trial: ClientTrial) -> Remark | None:
    """Nothing is ever answered, however often it asks."""
    [message] = trial.messages()
    sock, _ = _begin_datagrams(trial, [message])
    await trial.question(sock, message)
    trial.transcript.add("server", "says nothing")
    await trial.fails_well("a server that never answers", trial.contract.client.seconds + trial.patience)
    return None


async def datagram_refused(trial: ClientTrial) -> Remark | None:
    """Nobody is at that port. A socket that is connected learns it (ICMP); others wait in vain."""
    sock, endpoint = trial.listen()
    sock.close()
    trial.run(endpoint, trial.messages())
    await trial.fails_well("a port where nobody is", trial.contract.client.seconds + trial.patience)
    return None


async def datagram_twice(trial: ClientTrial) -> Remark | None:
    """The first reply comes twice; then the client asks again."""
    messages = trial.messages(2)
    sock, _ = _begin_datagrams(trial, messages)
    heard, sender = await trial.question(sock, messages[0])
    await _answer_twice(trial, sock, trial.reply(heard).sample, (sender, sender), messages)
    return None


async def datagram_late(trial: ClientTrial) -> Remark | None:
    """The client has to ask again, and then both are answered."""
    messages = trial.messages(2)
    sock, _ = _begin_datagrams(trial, messages)
    heard, first = await trial.question(sock, messages[0])
    trial.transcript.add("server", "takes its time")
    try:
        _, second = await trial.datagram(sock, trial.contract.client.seconds)
    except TimeoutError:
        return Remark(Verdict.SKIP, "it doesn't ask again")
    await _answer_twice(trial, sock, trial.reply(heard).sample, (first, second), messages)
    return None


async def _answer_twice(
    trial: ClientTrial, sock: socket.socket, first: bytes, senders: Sequence[Any], messages: Sequence[bytes]
) -> None:
    """Two times the same reply, and then one to the next message. Raises Failed."""
    # Both have to be there when it wakes. If we lose that race it shows the first reply twice, and may be
    # right: so this failure is tried again, as one that came too late is.
    if senders[0] != senders[1] or not _send_two(sock, first, senders[0]):
        for sender in senders:
            sock.sendto(first, sender)
    trial.transcript.add("server", f"sends {shown(first)} twice")
    heard, sender = messages[0], None
    while heard.rstrip(b"\r\n") == messages[0]:  # on a busy machine it may have asked once more before that
        try:
            heard, sender = await trial.datagram(sock)
        except TimeoutError:
            raise Failed(f"the client to send {shown(messages[1])}", "nothing came", late=True) from None
    if heard.rstrip(b"\r\n") != messages[1]:
        raise Failed(f"the client to send {shown(messages[1])}", f"it sent {shown(heard)}")
    second = trial.reply(heard).sample
    with suppress(TimeoutError):
        while True:  # whoever matched the wrong one may ask again: that is no mistake yet
            trial.send_datagram(sock, second, sender)
            _, sender = await trial.datagram(sock, 0.2)
    await trial.shows(first, second)
    assert trial.program is not None
    if trial.program.stdout.data.count(first.rstrip()) > 1:
        raise Failed(
            "each reply with its own message", f"it shows {shown(first)} twice, as if for both", late=True
        )
    await trial.exits_well()


def _send_two(sock: socket.socket, data: bytes, to: Any) -> bool:
    """Send two datagrams by one call: between two of ours, who waits for the first may get to run.

    By UDP_SEGMENT (udp(7), Linux 4.18); False where there is none.
    """
    if sock.family == socket.AF_UNIX:
        return False
    segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(data)))
    try:
        sock.sendmsg([data, data], [segment], 0, to)
    except OSError:
        return False
    return True


async def datagram_stranger(trial: ClientTrial) -> Remark | None:
    """Somebody else's datagram comes before the reply."""
    [message] = trial.messages()
    sock, endpoint = _begin_datagrams(trial, [message])
    heard, sender = await trial.question(sock, message)
    wrong = b"WRONG: FROM A STRANGER"
    with socket.socket(sock.family, socket.SOCK_DGRAM) as stranger:
        if endpoint.host:
            stranger.bind((endpoint.host, 0))
        trial.send_datagram(stranger, wrong, sender, "stranger")
    await asyncio.sleep(0.1)
    reply = trial.reply(heard).sample
    trial.send_datagram(sock, reply, sender)
    await trial.shows(reply)
    assert trial.program is not None
    if wrong in trial.program.stdout.data:
        raise Failed("a datagram from a stranger to be ignored", f"it shows {shown(wrong)}")
    await trial.exits_well()
    return None
