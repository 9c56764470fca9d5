"""What is done to a stream server by clients that are many, slow, rude or gone.

The table is in `stream_server.py`. Everything here returns for PASS, gives a Note, or raises Failed.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import struct
from contextlib import suppress
from functools import partial

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.errors import NotListening
from bothends.check.subjects.recorded_socket import RecordedSocket, describe_difference, run_concurrently
from bothends.check.subjects.server_context import ServerContext
from bothends.check.transcript import quote_bytes

CONCURRENT_CLIENTS = 100
BURST_CLIENTS = 64
_TEXTBOOK_BACKLOG = 5  # connections: what a course's listen(5) asks for
_FLOOD_BYTES = 8 << 20
_ENDLESS_BYTES = 10 << 20
_MAX_MEMORY_GROWTH = (
    5 << 20
)  # bytes of growth: half of what was sent. No buffer of a fixed size comes near it
_SIGTERM_TIMEOUT = 2.0  # seconds in which SIGTERM should have had its effect
_MAX_IDLE_CPU = 0.2  # of a processor: a busy loop takes all of one, and whoever waits takes nothing
_SPARE_FDS = 8
_IDLE_TIMEOUT = 1.0  # seconds in which a server that has nothing to do waits again, unless it is a busy loop
_FD_CHECK_INTERVAL = 50


async def silent_client(ctx: ServerContext) -> Note | None:
    """Connect and close without a word, three times."""
    for number in range(3):
        client = await ctx.connect(f"silent {number + 1}")
        client.close()
    await ctx.expect_still_served("a client that closed without a word")
    return await expect_no_busy_loop(ctx) if ctx.server.program else None


async def idle_client(ctx: ServerContext) -> Note | None:
    """One connects and says nothing, another asks."""
    await ctx.connect("idle")
    await ctx.expect_served("second")
    return None


async def slow_client(ctx: ServerContext) -> Note | None:
    """One is in the middle of a message, another asks."""
    slow = await ctx.connect("slow")
    request = ctx.request(ctx.message(1))
    await slow.send(request[: len(request) // 2])
    await asyncio.sleep(0.1)
    await ctx.expect_served("second")
    await slow.send(request[len(request) // 2 :])
    await slow.expect_reply(ctx.reply(ctx.message(1)))
    return None


async def client_not_reading(ctx: ServerContext) -> Note | None:
    """One asks much and reads nothing, another asks."""
    deaf = await ctx.connect("deaf", small_rcvbuf=True)
    request = ctx.request(ctx.message(1, 1000))
    await deaf.send_without_reading(request * (_FLOOD_BYTES // len(request)), 0.5)
    await ctx.expect_served("second")
    return None


async def concurrent_clients(ctx: ServerContext) -> Note | None:
    """Many at once, each with a message of its own."""
    talks: list[RecordedSocket] = []
    for number in range(CONCURRENT_CLIENTS):  # one by one: whether the queue holds many is another case
        talk = await ctx.connect(f"client {number + 1}")
        talk.timeout = ctx.timeout * 4
        talks.append(talk)
        if number % 10 == 9:
            await asyncio.sleep(0.01)

    free, cut = ctx.oracle.accepts_any_message, ctx.contract.framing != "none"

    async def one(number: int, talk: RecordedSocket) -> None:
        message = ctx.message(number, 200 + number if free else None)
        request = ctx.request(message)
        half = len(request) // 2 if cut else len(request)
        await talk.send(request[:half])
        await asyncio.sleep(0.05)  # all others are in the middle of theirs now
        await talk.send(request[half:])
        await talk.expect_reply(ctx.reply(message))
        talk.close()

    await run_concurrently([one(*each) for each in enumerate(talks)])
    return None


async def descriptor_leak(ctx: ServerContext) -> Note | None:
    """A thousand connections, one after the other."""
    for number in range(5):  # what it opens once, it has opened now
        await ctx.expect_served("early", number)
    before = ctx.fd_count()
    for done in range(_FD_CHECK_INTERVAL, 1000 + 1, _FD_CHECK_INTERVAL):
        for number in range(done - _FD_CHECK_INTERVAL, done):
            await ctx.expect_served(f"client {number + 1}", number)
        # Looked at now and then: who keeps something of each client (be it a process) needn't do so of all.
        spare = _SPARE_FDS if done == 1000 else _FD_CHECK_INTERVAL
        if not await ctx.wait_until(partial(_fd_count_at_most, ctx, before + spare), ctx.timeout):
            raise CheckFailed(
                f"about {before} open descriptors, as before",
                f"there are {ctx.fd_count():,} after {done:,} connections that are all closed",
                timed_out=True,
            )
    return None


def _fd_count_at_most(ctx: ServerContext, limit: int) -> bool:
    return ctx.fd_count() <= limit


async def zombies(ctx: ServerContext) -> Note | None:
    """Thirty clients, which leave while the server is stopped, so that all of its children end at once.

    Two more follow, for who waits for children when the next client comes.
    """
    clients = []
    for number in range(30):
        clients.append(await ctx.connect(f"client {number + 1}"))
        await ctx.exchange(clients[-1], ctx.message(number))
    children = ctx.program.process_tree()[1:]
    with ctx.stopped():
        for client in clients:
            client.close()
        await ctx.wait_until(lambda: not children or ctx.zombie_count() == len(children), 0.5)
    await ctx.expect_served("last but one")
    await ctx.expect_served("last")
    if not await ctx.wait_until(lambda: ctx.zombie_count() <= 4, ctx.timeout):
        raise CheckFailed(
            "no dead children that nobody waited for",
            f"there are {ctx.zombie_count()} zombies",
            timed_out=True,
        )
    return None


async def reset_mid_message(ctx: ServerContext) -> Note | None:
    """RST in the middle of a message."""
    for number in range(2):
        rude = await ctx.connect(f"rude {number + 1}")
        await rude.send(ctx.request(ctx.message(1))[:5])
        await asyncio.sleep(0.05)
        rude.reset()
    await ctx.expect_still_served("a reset in the middle of a message")
    return None


async def close_with_unread_reply(ctx: ServerContext) -> Note | None:
    """Ask for much, read none of it, close."""
    for number in range(2):
        client = await ctx.connect(f"careless {number + 1}", small_rcvbuf=True)
        if ctx.contract.persistent and ctx.oracle.accepts_any_message:
            request = ctx.request(ctx.message(1, 1000)) * 1000
        else:
            request = ctx.request(ctx.message(1))
        await client.send_without_reading(request, 0.3)
        client.close()  # with replies unread: the kernel sends RST (RFC 1122, 4.2.2.13)
    await _request_and_reset(ctx)
    await ctx.expect_still_served("a client that closed without reading its replies")
    return None


async def _request_and_reset(ctx: ServerContext) -> None:
    """Ask, finish sending and reset, before any of it is read. A server of ours is stopped meanwhile.

    The first send() to a connection that was reset gives ECONNRESET, and only the next one raises SIGPIPE;
    unless the client had finished sending: then the first does.
    """
    client = await ctx.connect("gone")
    await ctx.wait_until(ctx.is_idle, _IDLE_TIMEOUT)  # it has been accepted
    with ctx.stopped():
        await client.send(ctx.request(ctx.message(2)))
        client.shutdown_write()
        client.reset()


async def reset_before_accept(ctx: ServerContext) -> Note | None:
    """Connections that are gone before they are accepted. A server of ours is stopped meanwhile."""
    with ctx.stopped():
        for number in range(3):  # as many as its queue takes, and it may take two only
            ctx.start_connect(f"gone {number + 1}").reset()
    await ctx.expect_still_served("connections that were reset before they were accepted")
    return None


async def burst(ctx: ServerContext) -> Note | None:
    """Many connect while the server is busy: where it is ours, it is stopped for a moment.

    While it is stopped only the kernel welcomes, as many as its queue holds, on a busy machine as on any.
    """
    with ctx.stopped():
        clients = [ctx.start_connect(f"client {number + 1}") for number in range(BURST_CLIENTS)]
        await ctx.wait_until(lambda: all(client.is_connected() for client in clients), 0.5)
        at_once = sum(client.is_connected() for client in clients)
        ctx.transcript.add("check", f"{at_once} of {BURST_CLIENTS} connections are there at once")
    happened = f"the queue held {at_once} of {BURST_CLIENTS}; the others have to knock again a second later"
    if at_once <= _TEXTBOOK_BACKLOG and ctx.server.program is not None:
        raise CheckFailed(f"{BURST_CLIENTS} connections to be welcomed at once", happened)

    async def one(number: int, client: RecordedSocket) -> None:
        client.timeout = ctx.timeout * 4
        await client.wait_connected()
        await ctx.exchange(client, ctx.message(number))
        client.close()

    await run_concurrently([one(*each) for each in enumerate(clients)])
    return Note(Verdict.NON_STRICT, happened) if at_once < BURST_CLIENTS else None


async def restart(ctx: ServerContext) -> Note | None:
    """Killed with live connections and started again."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message())
    idle = await ctx.connect("idle")
    ctx.transcript.add("check", "kills the server (SIGKILL)")
    await ctx.kill()
    client.close()
    idle.close()
    try:
        await ctx.restart()
    except NotListening as error:
        last = error.stderr_tail.rpartition("\n")[2]
        happened = f"{error.reason}: {last}" if last else error.reason
        raise CheckFailed("the server to bind the same port again", happened) from error
    await ctx.expect_served()
    return None


async def sigterm(ctx: ServerContext) -> Note | None:
    """SIGTERM, with an idle client attached."""
    await ctx.expect_served("first")
    idle = await ctx.connect("idle")
    await ctx.wait_until(ctx.is_idle, _IDLE_TIMEOUT)  # it has accepted: who forks has forked
    limit = _SIGTERM_TIMEOUT * ctx.load_factor
    leaving = asyncio.ensure_future(_close_on_eof(idle, limit))
    ctx.signal(signal.SIGTERM, "SIGTERM")
    gone = await ctx.program.wait(limit)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    if not gone:
        raise CheckFailed(
            f"the server to be gone {_SIGTERM_TIMEOUT:g} s after SIGTERM", "it still runs", timed_out=True
        )
    ctx.transcript.add("server", f"ends: {ctx.program.exit_description}")
    if not await ctx.wait_until(lambda: not ctx.is_listening(), limit):
        raise CheckFailed(
            "nobody to listen any more", "a process that it started still holds the port", timed_out=True
        )
    return None


async def _close_on_eof(idle: RecordedSocket, timeout: float) -> None:
    """What a client does that has nothing to say: at the server's FIN it closes too."""
    if await idle.wait_closed_by_peer(timeout):
        idle.close()


async def idle_cpu(ctx: ServerContext) -> Note | None:
    """Nothing to do, with an idle client attached."""
    await ctx.expect_served("first")
    await ctx.connect("idle")
    await asyncio.sleep(0.5)
    return await expect_no_busy_loop(ctx)


async def expect_no_busy_loop(ctx: ServerContext) -> Note | None:
    """Make sure that a server at rest uses no processor time. Raises Failed."""
    share = await ctx.cpu_share()
    if share > _MAX_IDLE_CPU:
        raise CheckFailed(
            "a server at rest to use no processor time", f"it uses {share:.0%} of a processor", timed_out=True
        )
    return None


async def descriptor_limit(ctx: ServerContext) -> Note | None:
    """More connections than there are descriptors for, and then they leave."""
    await ctx.expect_served("first")
    pid = ctx.program.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = ctx.fd_count() + _SPARE_FDS
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    ctx.transcript.add("check", f"lowers its limit of descriptors to {limit}")
    try:
        # Deaf, so that a server whose reply never ends has soon said all that the buffers hold, and waits.
        flood = [ctx.start_connect(f"client {number + 1}", small_rcvbuf=True) for number in range(40)]
        share = await ctx.cpu_share(windows=20 if ctx.contract.endless else 2, seconds=0.5)
        ctx.transcript.add("check", f"it uses {share:.0%} of a processor meanwhile")
        for client in flood:
            client.close()
        await ctx.expect_still_served("descriptors had run out and were free again")
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    if share > 0.7:
        happened = f"it tries again and again, which takes {share:.0%} of a processor"
        raise CheckFailed("a pause when accept() gives EMFILE", happened, timed_out=True)
    return None


async def many_descriptors(ctx: ServerContext) -> Note | None:
    """More than 1,024 connections at once: select() can't watch a descriptor of 1,024 or more (select(2))."""
    soft, hard = resource.prlimit(ctx.program.pid, resource.RLIMIT_NOFILE)
    if soft < 1200:
        if hard < 1200:
            return Note(Verdict.SKIP, f"it may open {hard:,} descriptors only")
        resource.prlimit(ctx.program.pid, resource.RLIMIT_NOFILE, (1200, hard))
    talks = []
    for number in range(1100):
        talks.append(await ctx.connect(f"client {number + 1}"))
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    await ctx.exchange(talks[-1], ctx.message(1))
    for talk in talks:
        talk.close()
    await ctx.expect_still_served("1,100 connections")
    return None


async def endless_message(ctx: ServerContext) -> Note | None:
    """Ten million bytes, and the message still isn't at its end."""
    await ctx.expect_served("first")
    before = ctx.memory_usage() if ctx.server.program else 0
    client = await ctx.connect()
    chunk = b"a" * 65_536
    start = struct.pack("!I", 1 << 30) if ctx.contract.framing == "length" else b""
    client.note(f"sends {_ENDLESS_BYTES:,} bytes of one message")
    taken = 0
    loop = asyncio.get_running_loop()
    try:
        await client.send(start)
        while taken < _ENDLESS_BYTES:
            await asyncio.wait_for(loop.sock_sendall(client.socket, chunk), ctx.timeout)
            taken += len(chunk)
            with suppress(BlockingIOError):
                data = client.socket.recv(65_536)
                if not data:
                    raise ConnectionResetError
                client.note(f"receives {quote_bytes(data)}: it answers as it reads, and keeps nothing")
                return None
    except TimeoutError:
        if await client.wait_closed_by_peer(0.5):
            return None
        return Note(
            Verdict.NON_STRICT, f"it reads no more after {taken:,} bytes, and leaves the connection open"
        )
    except OSError:
        client.note(f"the connection is closed after {taken:,} bytes")
        await ctx.expect_still_served("a message without an end")
        return None
    if await client.wait_closed_by_peer(0.5):
        return None
    if not ctx.server.program:
        return Note(Verdict.INFO, f"it took {taken:,} bytes; whether it keeps them can't be seen from here")
    grown = ctx.memory_usage() - before
    if grown > _MAX_MEMORY_GROWTH:
        raise CheckFailed(
            "a limit on the length of a message",
            f"it took all {taken:,} bytes, and its memory has grown by {grown / 1e6:.1f} MB",
        )
    return Note(Verdict.NON_STRICT, f"it takes and drops {taken:,} bytes of one message without closing")


async def close_unread(ctx: ServerContext) -> Note | None:
    """More than the one message, to a client that takes its reply slowly: the rest stays unread."""
    overhead = len(ctx.request(b"")) if ctx.oracle.accepts_any_message else 0
    size = min(ctx.contract.max_message_size, 65_536) - overhead
    message = ctx.message(0, size) if ctx.oracle.accepts_any_message else ctx.message()
    client = await ctx.connect(small_rcvbuf=True)
    surplus = b"more that nobody asked for\n" * 40
    sending = asyncio.ensure_future(client.send(ctx.request(message) + surplus))
    await asyncio.sleep(0.3)  # it may have said all it has to say, and closed
    heard = b""
    reply = ctx.reply(message)
    reset = ""
    try:
        while True:
            data = await client.receive(ctx.timeout)
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
    if not reply.matches(heard):
        lost = (
            "the connection was reset, and the rest of the reply was lost"
            if reset
            else describe_difference(reply, heard)
        )
        raise CheckFailed(f"the reply, {reply}", f"{len(heard):,} bytes came; {lost}")
    if reset:
        return Note(
            Verdict.NON_STRICT, "the reply came, and then RST: on a slow path it would have been destroyed"
        )
    return None
