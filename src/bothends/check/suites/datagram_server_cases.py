"""What is done to a datagram server. The table is in `datagram_server.py`.

Everything here returns for PASS, gives a Remark, or raises Failed.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from contextlib import suppress
from typing import Final

from bothends.check.case import Failed, Remark, Verdict
from bothends.check.subjects.recorded_socket import Talk
from bothends.check.subjects.server_context import Trial
from bothends.check.suites.stream_concurrency_cases import must_rest
from bothends.check.suites.stream_message_cases import LENGTHS
from bothends.check.transcript import shown

_SURPLUS: Final = 0.15  # seconds in which a second reply to one datagram shows itself
_BURST: Final = 5000
_GONE: Final = 2.0
_ELSEWHERE: Final = "127.0.0.2"  # the whole of 127.0.0.0/8 is this machine on Linux (RFC 1122, 3.2.1.3)


async def ask(trial: Trial, talk: Talk, message: bytes) -> None:
    """A datagram and its reply."""
    await talk.say(message)
    await talk.hear_datagram(trial.reply(message))


async def one_message(trial: Trial) -> Remark | None:
    """A datagram, its reply, and no second one."""
    client = await trial.connect()
    await ask(trial, client, trial.message())
    await client.hear_nothing(_SURPLUS)
    return None


async def empty(trial: Trial) -> Remark | None:
    """A datagram without a byte in it, which is a datagram all the same (RFC 768)."""
    client = await trial.connect()
    await ask(trial, client, b"")
    await trial.still_serves("an empty datagram")
    return None


async def largest(trial: Trial) -> Remark | None:
    """The longest datagram that the contract promises."""
    client = await trial.connect()
    await ask(trial, client, trial.message(0, trial.contract.longest))
    return None


async def lengths(trial: Trial) -> Remark | None:
    """A long datagram, a short one, a long one: nothing of one is in the reply to the next."""
    client = await trial.connect()
    for number, size in enumerate(size for size in LENGTHS if size <= trial.contract.longest):
        await ask(trial, client, trial.message(number, size))
    return None


async def two_quick(trial: Trial) -> Remark | None:
    """Two datagrams, one right after the other."""
    client = await trial.connect()
    await client.say(trial.message(1))
    await client.say(trial.message(2))
    await client.hear_datagrams([trial.reply(trial.message(1)), trial.reply(trial.message(2))])
    return None


async def two_clients(trial: Trial) -> Remark | None:
    """Two clients by turns."""
    one, other = await trial.connect("one"), await trial.connect("other")
    for number in range(0, 6, 2):
        await one.say(trial.message(number))
        await other.say(trial.message(number + 1))
        await one.hear_datagram(trial.reply(trial.message(number)))
        await other.hear_datagram(trial.reply(trial.message(number + 1)))
    return None


async def client_gone(trial: Trial) -> Remark | None:
    """Clients that close before their reply comes: it meets a port where nobody is (ICMP)."""
    for number in range(3):
        client = await trial.connect(f"gone {number + 1}")
        with trial.stopped():  # or a quick server's reply would be there before we are gone
            await client.say(trial.message(number))
            client.close()
        await asyncio.sleep(0.02)
    await trial.still_serves("clients that were gone before their replies came")
    return None


async def duplicate(trial: Trial) -> Remark | None:
    """The same datagram twice, as a network may do it."""
    client = await trial.connect()
    await client.say(trial.message())
    await client.say(trial.message())
    await client.hear_datagrams([trial.reply(trial.message())] * 2)
    return None


async def out_of_order(trial: Trial) -> Remark | None:
    """Numbered datagrams in another order than that of their numbers."""
    client = await trial.connect()
    order = (3, 1, 4, 0, 2)
    for number in order:
        await client.say(trial.message(number))
    await client.hear_datagrams([trial.reply(trial.message(number)) for number in order])
    return None


async def burst(trial: Trial) -> Remark | None:
    """Many at once: more than a receive buffer holds. Some are lost, and that is no mistake."""
    client = await trial.connect()
    with suppress(OSError):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    message = trial.message()
    client.note(f"sends {_BURST:,} datagrams at once, each {shown(message)}")
    answered = 0
    for number in range(_BURST):
        with suppress(BlockingIOError, ConnectionRefusedError):
            client.socket.send(message)
        if number % 250 == 249:
            await asyncio.sleep(0)
    with suppress(TimeoutError, OSError):
        while True:
            await client.receive(0.5)
            answered += 1
    client.note(f"receives {answered:,} replies")
    await trial.still_serves(f"{_BURST:,} datagrams at once")
    return Remark(Verdict.PASS, f"{answered:,} of {_BURST:,} were answered, the others were lost")


async def source(trial: Trial) -> Remark | None:
    """Asked at another address of this machine: whence comes the reply?"""
    if trial.server.program is None or trial.server.endpoint.host != "127.0.0.1":
        return Remark(Verdict.SKIP, "only a server that is started here has a second address that we know")
    port = trial.server.endpoint.port
    probe = await trial.connect("probe", at=trial.server.endpoint.with_host(_ELSEWHERE))
    await probe.say(trial.message(1))
    try:
        await probe.receive(0.2)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return Remark(Verdict.SKIP, "it is bound to one address, so there is no other to ask")
    except TimeoutError:
        pass
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        trial.transcript.add("client", f"sends {shown(trial.message(2))} to {_ELSEWHERE}#{port}")
        sock.sendto(trial.message(2), (_ELSEWHERE, port))
        try:
            data, sender = await asyncio.wait_for(loop.sock_recvfrom(sock, 65_536), trial.patience)
        except TimeoutError:
            raise Failed("a reply", f"nothing came for {trial.patience:g} s", late=True) from None
    trial.transcript.add("client", f"receives {shown(data)} from {sender[0]}#{sender[1]}")
    if sender != (_ELSEWHERE, port):
        happened = f"it comes from {sender[0]}#{sender[1]}: a client that is connected never sees it"
        raise Failed(f"a reply from {_ELSEWHERE}#{port}, which was asked", happened)
    return None


async def malformed(trial: Trial) -> Remark | None:
    """Datagrams that are no text, and none of the contract's messages."""
    client = await trial.connect("stranger")
    for data in (b"\xff\xfe\xfd", b"\x00" * 8, b"\xc3", bytes(range(256)), b"%s%n%s%n"):
        await client.say(data)
    await asyncio.sleep(0.05)
    await trial.still_serves("datagrams that are no messages")
    return None


async def binary(trial: Trial) -> Remark | None:
    """NUL, 0xFF and other bytes that are no text."""
    client = await trial.connect()
    await ask(trial, client, b"nul \x00 and ff \xff " + bytes(range(1, 32)) + bytes(range(127, 256)))
    return None


async def sigterm(trial: Trial) -> Remark | None:
    """SIGTERM."""
    await trial.serves("first")
    trial.signal(signal.SIGTERM, "SIGTERM")
    limit = _GONE * trial.scale
    if not await trial.program.wait(limit):
        raise Failed(f"the server to be gone {_GONE:g} s after SIGTERM", "it still runs", late=True)
    trial.transcript.add("server", f"ends: {trial.program.ending}")
    if not await trial.until(lambda: not trial.listens(), limit):
        raise Failed("nobody to listen any more", "a process that it started holds the port", late=True)
    return None


async def idle_cpu(trial: Trial) -> Remark | None:
    """Nothing to do."""
    await trial.serves("first")
    await asyncio.sleep(0.5)
    return await must_rest(trial)
