"""What is done to a stream server by clients that are many, slow, rude or gone.

The table is in `stream_server.py`. Everything here returns for PASS, gives a Remark, or raises Failed.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import struct
from contextlib import suppress
from functools import partial

from bothends.check.case import Failed, Remark, Verdict
from bothends.check.errors import NotReady
from bothends.check.subjects.recorded_socket import Talk, differs, together
from bothends.check.subjects.server_context import Trial
from bothends.check.transcript import shown

CROWD = 100
BURST = 64
_QUEUE = 5  # connections: what a course's listen(5) asks for
_FLOOD = 8 << 20
_ENDLESS = 10 << 20
_MEMORY = 5 << 20  # bytes of growth: half of what was sent. No buffer of a fixed size comes near it
_GONE = 2.0  # seconds in which SIGTERM should have had its effect
_IDLE = 0.2  # of a processor: a busy loop takes all of one, and whoever waits takes nothing
_SPARE = 8
_ASLEEP = 1.0  # seconds in which a server that has nothing to do waits again, unless it is a busy loop
_ROUND = 50


async def silent_client(trial: Trial) -> Remark | None:
    """Connect and close without a word, three times."""
    for number in range(3):
        client = await trial.connect(f"silent {number + 1}")
        client.close()
    await trial.still_serves("a client that closed without a word")
    return await must_rest(trial) if trial.server.program else None


async def idle_client(trial: Trial) -> Remark | None:
    """One connects and says nothing, another asks."""
    await trial.connect("idle")
    await trial.serves("second")
    return None


async def slow_client(trial: Trial) -> Remark | None:
    """One is in the middle of a message, another asks."""
    slow = await trial.connect("slow")
    request = trial.request(trial.message(1))
    await slow.say(request[: len(request) // 2])
    await asyncio.sleep(0.1)
    await trial.serves("second")
    await slow.say(request[len(request) // 2 :])
    await slow.hear(trial.reply(trial.message(1)))
    return None


async def deaf_client(trial: Trial) -> Remark | None:
    """One asks much and reads nothing, another asks."""
    deaf = await trial.connect("deaf", deaf=True)
    request = trial.request(trial.message(1, 1000))
    await deaf.flood(request * (_FLOOD // len(request)), 0.5)
    await trial.serves("second")
    return None


async def crowd(trial: Trial) -> Remark | None:
    """Many at once, each with a message of its own."""
    talks: list[Talk] = []
    for number in range(CROWD):  # one by one: whether the queue holds many is another case
        talk = await trial.connect(f"client {number + 1}")
        talk.patience = trial.patience * 4
        talks.append(talk)
        if number % 10 == 9:
            await asyncio.sleep(0.01)

    free, cut = trial.answers.free, trial.contract.framing != "none"

    async def one(number: int, talk: Talk) -> None:
        message = trial.message(number, 200 + number if free else None)
        request = trial.request(message)
        half = len(request) // 2 if cut else len(request)
        await talk.say(request[:half])
        await asyncio.sleep(0.05)  # all others are in the middle of theirs now
        await talk.say(request[half:])
        await talk.hear(trial.reply(message))
        talk.close()

    await together([one(*each) for each in enumerate(talks)])
    return None


async def descriptors(trial: Trial) -> Remark | None:
    """A thousand connections, one after the other."""
    for number in range(5):  # what it opens once, it has opened now
        await trial.serves("early", number)
    before = trial.descriptors()
    for done in range(_ROUND, 1000 + 1, _ROUND):
        for number in range(done - _ROUND, done):
            await trial.serves(f"client {number + 1}", number)
        # Looked at now and then: who keeps something of each client (be it a process) needn't do so of all.
        spare = _SPARE if done == 1000 else _ROUND
        if not await trial.until(partial(_holds_at_most, trial, before + spare), trial.patience):
            raise Failed(
                f"about {before} open descriptors, as before",
                f"there are {trial.descriptors():,} after {done:,} connections that are all closed",
                late=True,
            )
    return None


def _holds_at_most(trial: Trial, most: int) -> bool:
    return trial.descriptors() <= most


async def zombies(trial: Trial) -> Remark | None:
    """Thirty clients, which leave while the server is stopped, so that all of its children end at once.

    Two more follow, for who waits for children when the next client comes.
    """
    clients = []
    for number in range(30):
        clients.append(await trial.connect(f"client {number + 1}"))
        await trial.ask(clients[-1], trial.message(number))
    children = trial.program.family()[1:]
    with trial.stopped():
        for client in clients:
            client.close()
        await trial.until(lambda: not children or trial.zombies() == len(children), 0.5)
    await trial.serves("last but one")
    await trial.serves("last")
    if not await trial.until(lambda: trial.zombies() <= 4, trial.patience):
        raise Failed(
            "no dead children that nobody waited for", f"there are {trial.zombies()} zombies", late=True
        )
    return None


async def reset(trial: Trial) -> Remark | None:
    """RST in the middle of a message."""
    for number in range(2):
        rude = await trial.connect(f"rude {number + 1}")
        await rude.say(trial.request(trial.message(1))[:5])
        await asyncio.sleep(0.05)
        rude.reset()
    await trial.still_serves("a reset in the middle of a message")
    return None


async def reply_unread(trial: Trial) -> Remark | None:
    """Ask for much, read none of it, close."""
    for number in range(2):
        client = await trial.connect(f"careless {number + 1}", deaf=True)
        if trial.contract.persistent and trial.answers.free:
            request = trial.request(trial.message(1, 1000)) * 1000
        else:
            request = trial.request(trial.message(1))
        await client.flood(request, 0.3)
        client.close()  # with replies unread: the kernel sends RST (RFC 1122, 4.2.2.13)
    await _ask_and_be_gone(trial)
    await trial.still_serves("a client that closed without reading its replies")
    return None


async def _ask_and_be_gone(trial: Trial) -> None:
    """Ask, finish sending and reset, before any of it is read. A server of ours is stopped meanwhile.

    The first send() to a connection that was reset gives ECONNRESET, and only the next one raises SIGPIPE;
    unless the client had finished sending: then the first does.
    """
    client = await trial.connect("gone")
    await trial.until(trial.asleep, _ASLEEP)  # it has been accepted
    with trial.stopped():
        await client.say(trial.request(trial.message(2)))
        client.finish()
        client.reset()


async def reset_before_accept(trial: Trial) -> Remark | None:
    """Connections that are gone before they are accepted. A server of ours is stopped meanwhile."""
    with trial.stopped():
        for number in range(3):  # as many as its queue takes, and it may take two only
            trial.begin_connecting(f"gone {number + 1}").reset()
    await trial.still_serves("connections that were reset before they were accepted")
    return None


async def burst(trial: Trial) -> Remark | None:
    """Many connect while the server is busy: where it is ours, it is stopped for a moment.

    While it is stopped only the kernel welcomes, as many as its queue holds, on a busy machine as on any.
    """
    with trial.stopped():
        clients = [trial.begin_connecting(f"client {number + 1}") for number in range(BURST)]
        await trial.until(lambda: all(client.is_connected() for client in clients), 0.5)
        at_once = sum(client.is_connected() for client in clients)
        trial.transcript.add("check", f"{at_once} of {BURST} connections are there at once")
    happened = f"the queue held {at_once} of {BURST}; the others have to knock again a second later"
    if at_once <= _QUEUE and trial.server.program is not None:
        raise Failed(f"{BURST} connections to be welcomed at once", happened)

    async def one(number: int, client: Talk) -> None:
        client.patience = trial.patience * 4
        await client.connected()
        await trial.ask(client, trial.message(number))
        client.close()

    await together([one(*each) for each in enumerate(clients)])
    return Remark(Verdict.NON_STRICT, happened) if at_once < BURST else None


async def restart(trial: Trial) -> Remark | None:
    """Killed with live connections and started again."""
    client = await trial.connect()
    await trial.ask(client, trial.message())
    idle = await trial.connect("idle")
    trial.transcript.add("check", "kills the server (SIGKILL)")
    await trial.kill()
    client.close()
    idle.close()
    try:
        await trial.restart()
    except NotReady as error:
        last = error.complaint.rpartition("\n")[2]
        happened = f"{error.reason}: {last}" if last else error.reason
        raise Failed("the server to bind the same port again", happened) from error
    await trial.serves()
    return None


async def sigterm(trial: Trial) -> Remark | None:
    """SIGTERM, with an idle client attached."""
    await trial.serves("first")
    idle = await trial.connect("idle")
    await trial.until(trial.asleep, _ASLEEP)  # it has accepted: who forks has forked
    limit = _GONE * trial.scale
    leaving = asyncio.ensure_future(_leave_when_told(idle, limit))
    trial.signal(signal.SIGTERM, "SIGTERM")
    gone = await trial.program.wait(limit)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    if not gone:
        raise Failed(f"the server to be gone {_GONE:g} s after SIGTERM", "it still runs", late=True)
    trial.transcript.add("server", f"ends: {trial.program.ending}")
    if not await trial.until(lambda: not trial.listens(), limit):
        raise Failed("nobody to listen any more", "a process that it started still holds the port", late=True)
    return None


async def _leave_when_told(idle: Talk, seconds: float) -> None:
    """What a client does that has nothing to say: at the server's FIN it closes too."""
    if await idle.is_over(seconds):
        idle.close()


async def idle_cpu(trial: Trial) -> Remark | None:
    """Nothing to do, with an idle client attached."""
    await trial.serves("first")
    await trial.connect("idle")
    await asyncio.sleep(0.5)
    return await must_rest(trial)


async def must_rest(trial: Trial) -> Remark | None:
    """Make sure that a server at rest uses no processor time. Raises Failed."""
    share = await trial.busy()
    if share > _IDLE:
        raise Failed(
            "a server at rest to use no processor time", f"it uses {share:.0%} of a processor", late=True
        )
    return None


async def descriptor_limit(trial: Trial) -> Remark | None:
    """More connections than there are descriptors for, and then they leave."""
    await trial.serves("first")
    pid = trial.program.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = trial.descriptors() + _SPARE
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    trial.transcript.add("check", f"lowers its limit of descriptors to {limit}")
    try:
        # Deaf, so that a server whose reply never ends has soon said all that the buffers hold, and waits.
        flood = [trial.begin_connecting(f"client {number + 1}", deaf=True) for number in range(40)]
        share = await trial.busy(windows=20 if trial.contract.endless else 2, seconds=0.5)
        trial.transcript.add("check", f"it uses {share:.0%} of a processor meanwhile")
        for client in flood:
            client.close()
        await trial.still_serves("descriptors had run out and were free again")
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    if share > 0.7:
        happened = f"it tries again and again, which takes {share:.0%} of a processor"
        raise Failed("a pause when accept() gives EMFILE", happened, late=True)
    return None


async def many_descriptors(trial: Trial) -> Remark | None:
    """More than 1,024 connections at once: select() can't watch a descriptor of 1,024 or more (select(2))."""
    soft, hard = resource.prlimit(trial.program.pid, resource.RLIMIT_NOFILE)
    if soft < 1200:
        if hard < 1200:
            return Remark(Verdict.SKIP, f"it may open {hard:,} descriptors only")
        resource.prlimit(trial.program.pid, resource.RLIMIT_NOFILE, (1200, hard))
    talks = []
    for number in range(1100):
        talks.append(await trial.connect(f"client {number + 1}"))
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    await trial.ask(talks[-1], trial.message(1))
    for talk in talks:
        talk.close()
    await trial.still_serves("1,100 connections")
    return None


async def endless_message(trial: Trial) -> Remark | None:
    """Ten million bytes, and the message still isn't at its end."""
    await trial.serves("first")
    before = trial.memory() if trial.server.program else 0
    client = await trial.connect()
    chunk = b"a" * 65_536
    start = struct.pack("!I", 1 << 30) if trial.contract.framing == "length" else b""
    client.note(f"sends {_ENDLESS:,} bytes of one message")
    taken = 0
    loop = asyncio.get_running_loop()
    try:
        await client.say(start)
        while taken < _ENDLESS:
            await asyncio.wait_for(loop.sock_sendall(client.socket, chunk), trial.patience)
            taken += len(chunk)
            with suppress(BlockingIOError):
                data = client.socket.recv(65_536)
                if not data:
                    raise ConnectionResetError
                client.note(f"receives {shown(data)}: it answers as it reads, and keeps nothing")
                return None
    except TimeoutError:
        if await client.is_over(0.5):
            return None
        return Remark(
            Verdict.NON_STRICT, f"it reads no more after {taken:,} bytes, and leaves the connection open"
        )
    except OSError:
        client.note(f"the connection is closed after {taken:,} bytes")
        await trial.still_serves("a message without an end")
        return None
    if await client.is_over(0.5):
        return None
    if not trial.server.program:
        return Remark(Verdict.INFO, f"it took {taken:,} bytes; whether it keeps them can't be seen from here")
    grown = trial.memory() - before
    if grown > _MEMORY:
        raise Failed(
            "a limit on the length of a message",
            f"it took all {taken:,} bytes, and its memory has grown by {grown / 1e6:.1f} MB",
        )
    return Remark(Verdict.NON_STRICT, f"it takes and drops {taken:,} bytes of one message without closing")


async def close_unread(trial: Trial) -> Remark | None:
    """More than the one message, to a client that takes its reply slowly: the rest stays unread."""
    overhead = len(trial.request(b"")) if trial.answers.free else 0
    size = min(trial.contract.longest, 65_536) - overhead
    message = trial.message(0, size) if trial.answers.free else trial.message()
    client = await trial.connect(deaf=True)
    surplus = b"more that nobody asked for\n" * 40
    sending = asyncio.ensure_future(client.say(trial.request(message) + surplus))
    await asyncio.sleep(0.3)  # it may have said all it has to say, and closed
    heard = b""
    reply = trial.reply(message)
    reset = ""
    try:
        while True:
            data = await client.receive(trial.patience)
            if not data:
                break
            heard += data
    except TimeoutError:
        pass
    except OSError:
        reset = "RST"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    client.note(f"has {len(heard):,} bytes of the reply{', then RST' if reset else ''}")
    if not reply.fits(heard):
        lost = (
            "the connection was reset, and the rest of the reply was lost" if reset else differs(reply, heard)
        )
        raise Failed(f"the reply, {reply}", f"{len(heard):,} bytes came; {lost}")
    if reset:
        return Remark(
            Verdict.NON_STRICT, "the reply came, and then RST: on a slow path it would have been destroyed"
        )
    return None
