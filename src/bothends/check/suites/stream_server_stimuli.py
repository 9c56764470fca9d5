"""Stimuli for stream servers: messages cut and joined in many ways, then many, slow and misbehaving clients,
then signals and limits of the process.

The table is in `stream_server_table.py`. Each stimulus returns None for PASS, returns a Note for another
verdict, and raises CheckFailed for FAIL.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from bothends.check.case import CheckFailed, Note, NotListening, Verdict
from bothends.check.subjects.recorded_socket import RecordedSocket, describe_difference, run_concurrently
from bothends.check.subjects.server_context import ServerContext
from bothends.check.transcript import quote_bytes

ALTERNATING_LENGTHS: Final = (700, 40, 700)  # bytes of a long message, a short one, and a long one again
CONCURRENT_CLIENTS: Final = 100
BURST_CLIENTS: Final = 64
_BYTE_INTERVAL: Final = 0.02  # seconds: long enough for a waiting server to read each byte separately
_EXTRA_REPLY_WAIT: Final = 0.15  # seconds until surplus data is seen, which only a wrong server sends
_LARGE_TOTAL: Final = 1 << 20  # bytes
_OVER_ALL_BUFFERS: Final = 8 << 20  # bytes: above the buffers of one direction (4 MiB: tcp(7), tcp_wmem)
_STALL_TIMEOUT: Final = 0.3  # seconds without a byte accepted: both ends wait for the client to read
_BUFFER_SIZES: Final = [size + more for size in (512, 1024, 2048, 4096) for more in (-1, 0, 1)]
_TEXTBOOK_BACKLOG: Final = 5  # connections: the listen(5) of textbooks
_FLOOD_BYTES: Final = 8 << 20
_ENDLESS_BYTES: Final = 10 << 20
_MAX_MEMORY_GROWTH: Final = 5 << 20  # bytes: half of what is sent, and far above any buffer of a fixed size
_SPARE_FDS: Final = 8
_IDLE_TIMEOUT: Final = (
    1.0  # seconds within which a server without requests is asleep, unless it is a busy loop
)
_FD_CHECK_INTERVAL: Final = 50  # connections


# Messages ----------------------------------------------------------------------------------------


async def one_message(ctx: ServerContext) -> Note | None:
    """Send a message, and check that nothing follows the reply."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message())
    if not ctx.contract.endless:
        await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def split_write(ctx: ServerContext) -> Note | None:
    """Send a message byte by byte."""
    client = await ctx.connect()
    request = ctx.request(ctx.message())
    await client.send_pieces([request[at : at + 1] for at in range(len(request))], _BYTE_INTERVAL)
    await client.expect_reply(ctx.reply(ctx.message()))
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def two_in_one(ctx: ServerContext) -> Note | None:
    """Send two messages in one write."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message(1), ctx.message(2))
    return None


async def several_messages(ctx: ServerContext) -> Note | None:
    """Send five messages on one connection, each after the reply to the last."""
    client = await ctx.connect()
    for number in range(5):
        try:
            await ctx.exchange(client, ctx.message(number))
        except CheckFailed as failure:
            if number and failure.timed_out and not failure.cause:
                failure.cause = "reads one message from each connection, and leaves it open"
            raise
    return None


async def empty_message(ctx: ServerContext) -> Note | None:
    """Send an empty message, then another one."""
    client = await ctx.connect()
    await client.send(ctx.request(b"") + ctx.request(ctx.message(1)))
    await client.expect_reply(ctx.reply(b"", ctx.message(1)))
    return None


async def split_delimiter(ctx: ServerContext) -> Note | None:
    """Split the stream before the end of the first message, and shortly after the start of the second."""
    client = await ctx.connect()
    first, second = ctx.request(ctx.message(1)), ctx.request(ctx.message(2))
    both = first + second
    at = len(first)
    await client.send_pieces([both[: at - 1], both[at - 1 : at + 2], both[at + 2 :]], 0.05)
    await client.expect_reply(ctx.reply(ctx.message(1), ctx.message(2)))
    await client.expect_nothing(_EXTRA_REPLY_WAIT)
    return None


async def split_character(ctx: ServerContext) -> Note | None:
    """Split characters of three bytes. They have no upper case, so that every `upper` agrees."""
    client = await ctx.connect()
    message = "price: 5 € in 日本 (split)".encode()
    request = ctx.request(message)
    characters = [at for at, byte in enumerate(request) if byte >= 0xE0]
    cuts = [0, *(at + 1 + (number % 2) for number, at in enumerate(characters)), len(request)]
    pieces = [request[a:b] for a, b in itertools.pairwise(cuts)]
    await client.send_pieces(pieces, 0.05)
    await client.expect_reply(ctx.reply(message))
    return None


async def binary_message(ctx: ServerContext) -> Note | None:
    """Send NUL, 0xFF and other bytes that are not text."""
    client = await ctx.connect()
    rest = bytes(range(1, 32)).replace(b"\n", b"").replace(b"\r", b"")
    message = b"nul \x00 and ff \xff " + rest + bytes(range(127, 256)) + b" end"
    await ctx.exchange(client, message)
    return None


async def buffer_sizes(ctx: ServerContext) -> Note | None:
    """Send messages that fill common buffer sizes exactly, including their framing."""
    await _exchange_sizes(ctx, _BUFFER_SIZES)
    return None


async def alternating_lengths(ctx: ServerContext) -> Note | None:
    """Send a long message, a short one, and a long one: no reply may contain data of an earlier one."""
    await _exchange_sizes(ctx, ALTERNATING_LENGTHS)
    return None


async def _exchange_sizes(ctx: ServerContext, sizes: Sequence[int]) -> None:
    """Send messages of these sizes in bytes, with their framing, one after another."""
    overhead = len(ctx.request(b""))
    client: RecordedSocket | None = None
    for number, size in enumerate(size for size in sizes if size <= ctx.contract.max_message_size):
        if client is None or not ctx.contract.persistent:
            client = await ctx.connect()
        try:
            await ctx.exchange(client, ctx.message(number, size - overhead))
        except CheckFailed as failure:
            raise CheckFailed(
                f"the reply to {size:,} bytes", failure.happened, timed_out=failure.timed_out
            ) from failure
        if not ctx.contract.persistent:
            client.close()


async def large_messages(ctx: ServerContext) -> Note | None:
    """Send a million bytes, and read the replies at the same time."""
    client = await ctx.connect()
    if ctx.contract.persistent:
        messages = [ctx.message(number, 1000) for number in range(_LARGE_TOTAL // 1000)]
    else:
        messages = [ctx.message(0, min(ctx.contract.max_message_size, _LARGE_TOTAL) - len(ctx.request(b"")))]
    request, reply = b"".join(map(ctx.request, messages)), ctx.reply(*messages)
    sending = asyncio.ensure_future(client.send(request))
    try:
        await client.expect_reply(reply)
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return None


async def late_reader(ctx: ServerContext) -> Note | None:
    """Send until the server stops reading, and read only then, when its send buffer is full."""
    client = await ctx.connect()
    messages = [ctx.message(number, 1000) for number in range(_OVER_ALL_BUFFERS // 1000)]
    request = b"".join(map(ctx.request, messages))
    accepted = await client.send_without_reading(request, _STALL_TIMEOUT, ctx.is_idle)
    sending = asyncio.ensure_future(client.send(request[accepted:]))
    try:
        await client.expect_reply(ctx.reply(*messages))
        await sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return None


async def half_close(ctx: ServerContext) -> Note | None:
    """Send messages, shut down the write side, then read up to EOF."""
    client = await ctx.connect()
    messages = [ctx.message(number) for number in range(3 if ctx.contract.persistent else 1)]
    if ctx.contract.framing == "none":
        messages = messages[:1]
    await client.send(b"".join(map(ctx.request, messages)))
    client.shutdown_write()
    await client.expect_reply(ctx.reply(*messages))
    if rest := await client.receive_until_eof():
        raise CheckFailed("EOF after the reply", f"{len(rest):,} more bytes were received")
    return None


async def server_closes(ctx: ServerContext) -> Note | None:
    """Send a message, and wait for the server to close after its reply."""
    client = await ctx.connect()
    await ctx.exchange(client, ctx.message())
    if rest := await client.receive_until_eof():
        raise CheckFailed("EOF after the reply", f"{len(rest):,} more bytes were received")
    return None


async def unterminated_last_line(ctx: ServerContext) -> Note | None:
    """Send a message without its end, and shut down the write side."""
    client = await ctx.connect()
    await client.send(ctx.request(ctx.message())[:-1])
    client.shutdown_write()
    try:
        data = await client.receive_until_eof()
    except CheckFailed as failure:
        return Note(Verdict.INFO, f"a last line without its newline: {failure.happened}")
    answered = "gets a reply" if data else "gets no reply"
    return Note(Verdict.INFO, f"a last line without its newline {answered} at the client's EOF")


async def prints(ctx: ServerContext) -> Note | None:
    """Send a message, and wait until it appears on the server's standard output."""
    client = await ctx.connect()
    message = ctx.message(7)
    await client.send(ctx.request(message))
    client.shutdown_write()
    if not await ctx.program.stdout.wait_for(lambda printed: message in printed, ctx.timeout):
        printed = ctx.program.stdout.data
        raise CheckFailed(
            f"{quote_bytes(message)} on standard output", f"it printed {quote_bytes(printed)}", timed_out=True
        )
    return None


# Many, slow and misbehaving clients --------------------------------------------------------------


async def silent_client(ctx: ServerContext) -> Note | None:
    """Connect and close without sending, three times."""
    for number in range(3):
        client = await ctx.connect(f"silent {number + 1}")
        client.close()
    await ctx.expect_still_served("a client that closed without sending")
    if ctx.server.program:
        await ctx.expect_no_busy_loop()
    return None


async def idle_client(ctx: ServerContext) -> Note | None:
    """Connect an idle client, then send a message from a second client."""
    await ctx.connect("idle")
    await ctx.expect_served("second")
    return None


async def slow_client(ctx: ServerContext) -> Note | None:
    """Send half a message, then a message from a second client, then the other half."""
    slow = await ctx.connect("slow")
    request = ctx.request(ctx.message(1))
    await slow.send(request[: len(request) // 2])
    await asyncio.sleep(0.1)
    await ctx.expect_served("second")
    await slow.send(request[len(request) // 2 :])
    await slow.expect_reply(ctx.reply(ctx.message(1)))
    return None


async def client_not_reading(ctx: ServerContext) -> Note | None:
    """Send a lot without reading, then a message from a second client."""
    non_reader = await ctx.connect("non-reader", small_rcvbuf=True)
    request = ctx.request(ctx.message(1, 1000))
    flood = request * (_FLOOD_BYTES // len(request))
    await non_reader.send_without_reading(flood, 0.5, ctx.is_idle)
    await ctx.expect_served("second")
    return None


async def concurrent_clients(ctx: ServerContext) -> Note | None:
    """Send different messages from many clients at the same time."""
    clients: list[RecordedSocket] = []
    for number in range(CONCURRENT_CLIENTS):  # one by one, because `burst` tests the accept queue
        client = await ctx.connect(f"client {number + 1}")
        client.timeout = ctx.timeout * 4
        clients.append(client)
        if number % 10 == 9:
            await asyncio.sleep(0.01)

    any_message, splittable = ctx.oracle.accepts_any_message, ctx.contract.framing != "none"

    async def exchange(number: int, client: RecordedSocket) -> None:
        message = ctx.message(number, 200 + number if any_message else None)
        request = ctx.request(message)
        half = len(request) // 2 if splittable else len(request)
        await client.send(request[:half])
        await asyncio.sleep(0.05)  # until all clients have sent half a message
        await client.send(request[half:])
        await client.expect_reply(ctx.reply(message))
        client.close()

    await run_concurrently([exchange(*each) for each in enumerate(clients)])
    return None


async def reset_mid_message(ctx: ServerContext) -> Note | None:
    """Reset a connection in the middle of a message."""
    for number in range(2):
        client = await ctx.connect(f"client {number + 1}")
        await client.send(ctx.request(ctx.message(1))[:5])
        await asyncio.sleep(0.05)
        client.reset()
    await ctx.expect_still_served("a reset in the middle of a message")
    return None


async def close_with_unread_reply(ctx: ServerContext) -> Note | None:
    """Send many messages, and close without reading the replies."""
    for number in range(2):
        client = await ctx.connect(f"client {number + 1}", small_rcvbuf=True)
        if ctx.contract.persistent and ctx.oracle.accepts_any_message:
            request = ctx.request(ctx.message(1, 1000)) * 1000
        else:
            request = ctx.request(ctx.message(1))
        await client.send_without_reading(request, 0.3)
        client.close()  # with unread replies, so that the kernel sends RST (RFC 1122, 4.2.2.13)
    await _request_and_reset(ctx)
    await ctx.expect_still_served("a client that closed without reading its replies")
    return None


async def _request_and_reset(ctx: ServerContext) -> None:
    """Send a message, shut down the write side and reset before the server reads, which is stopped meanwhile.

    After a reset, the first send() fails with ECONNRESET, and only the next one raises SIGPIPE. If the client
    has shut down its write side before the reset, the first one raises it.
    """
    client = await ctx.connect("client 3")
    await ctx.wait_until(ctx.is_idle, _IDLE_TIMEOUT)  # until the connection is accepted
    with ctx.stopped():
        await client.send(ctx.request(ctx.message(2)))
        client.shutdown_write()
        client.reset()


async def reset_before_accept(ctx: ServerContext) -> Note | None:
    """Reset connections before they are accepted, while the server is stopped."""
    with ctx.stopped():
        for number in range(3):  # not more, because some accept queues hold two connections only
            ctx.start_connect(f"client {number + 1}").reset()
    await ctx.expect_still_served("connections that were reset before they were accepted")
    return None


async def burst(ctx: ServerContext) -> Note | None:
    """Connect many clients while the server is stopped.

    Meanwhile only the kernel accepts connections, as many as the accept queue holds, even on a busy machine.
    """
    with ctx.stopped():
        clients = [ctx.start_connect(f"client {number + 1}") for number in range(BURST_CLIENTS)]
        await ctx.wait_until(lambda: all(client.is_connected() for client in clients), 0.5)
        queue = ctx.accept_queue()
        waiting = [client for client in clients if (queue.has(client) if queue else client.is_connected())]
        queued = len(waiting)
        ctx.transcript.add("check", f"{queued} of {BURST_CLIENTS} connections are established at once")
    given = "" if queue is None else f" (listen() was called with {queue.backlog})"
    happened = (
        f"the accept queue held {queued} of {BURST_CLIENTS}{given}; the others would try again after a second"
    )
    # A queue holds one connection more than the backlog, so that of a textbook holds six.
    if queued <= _TEXTBOOK_BACKLOG and ctx.server.program is not None:
        raise CheckFailed(
            f"{BURST_CLIENTS} connections to be established at once", happened,
            cause="" if queue is None else f"a backlog of {queue.backlog}",
        )  # fmt: skip
    # The others would repeat their SYN after 1 s, 3 s, 7 s (RFC 6298), or take themselves for connected.
    for client in clients:
        if client not in waiting:
            client.reset()

    async def exchange(number: int, client: RecordedSocket) -> None:
        client.timeout = ctx.timeout * 4
        await client.wait_connected()
        await ctx.exchange(client, ctx.message(number))
        client.close()

    await run_concurrently([exchange(*each) for each in enumerate(waiting)])
    await ctx.expect_served()
    return Note(Verdict.NON_STRICT, happened) if queued < BURST_CLIENTS else None


async def endless_message(ctx: ServerContext) -> Note | None:
    """Send ten million bytes of one message without its end."""
    await ctx.expect_served("first")
    before = ctx.memory_usage() if ctx.server.program else 0
    client = await ctx.connect()
    chunk = b"a" * 65_536
    start = b""
    if ctx.contract.framing == "length":
        length = min(1 << 30, ctx.contract.max_length)
        start = length.to_bytes(ctx.contract.length_bytes, ctx.contract.length_order)
    client.note(f"sends {_ENDLESS_BYTES:,} bytes of one message")
    accepted = 0
    loop = asyncio.get_running_loop()
    try:
        await client.send(start)
        while accepted < _ENDLESS_BYTES:
            await asyncio.wait_for(loop.sock_sendall(client.socket, chunk), ctx.timeout)
            accepted += len(chunk)
            with suppress(BlockingIOError):
                data = client.socket.recv(65_536)
                if not data:
                    raise ConnectionResetError
                client.note(f"receives {quote_bytes(data)}: the server replies without buffering the message")
                return None
    except TimeoutError:
        if await client.wait_closed_by_peer(0.5):
            return None
        return Note(
            Verdict.NON_STRICT, f"it stops reading after {accepted:,} bytes, and leaves the connection open"
        )
    except OSError:
        client.note(f"the connection is closed after {accepted:,} bytes")
        await ctx.expect_still_served("a message without an end")
        return None
    if await client.wait_closed_by_peer(0.5):
        return None
    if not ctx.server.program:
        return Note(Verdict.INFO, f"it read {accepted:,} bytes; its memory use is unknown")
    growth = ctx.memory_usage() - before
    if growth > _MAX_MEMORY_GROWTH:
        raise CheckFailed(
            "a limit on the length of a message",
            f"it read all {accepted:,} bytes, and its memory use grew by {growth / 1e6:.1f} MB",
        )
    return Note(
        Verdict.NON_STRICT, f"it reads and discards {accepted:,} bytes of one message without closing"
    )


async def close_unread(ctx: ServerContext) -> Note | None:
    """Send surplus data after the one message, and read the reply slowly: the surplus stays unread."""
    overhead = len(ctx.request(b"")) if ctx.oracle.accepts_any_message else 0
    size = min(ctx.contract.max_message_size, 65_536) - overhead
    message = ctx.message(0, size) if ctx.oracle.accepts_any_message else ctx.message()
    client = await ctx.connect(small_rcvbuf=True)
    surplus = b"surplus after the message!\n" * 40
    sending = asyncio.ensure_future(client.send(ctx.request(message) + surplus))
    await asyncio.sleep(0.3)  # until the server has sent its reply and closed
    received = b""
    reply = ctx.reply(message)
    was_reset = False
    try:
        while True:
            data = await client.receive(ctx.timeout)
            if not data:
                break
            received += data
    except TimeoutError:
        pass
    except OSError:
        was_reset = True
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    client.note(f"receives {len(received):,} bytes of the reply{', then RST' if was_reset else ''}")
    answered = _answered_prefix(ctx, message + surplus, received)
    if answered and answered < len(message):
        raise CheckFailed(
            f"the reply, {reply}", f"it replies to the first {answered:,} bytes of {len(message):,} only",
            cause="a buffer that is smaller than the message",
        )  # fmt: skip
    if not answered and not reply.matches(received):
        lost = (
            "the connection was reset, and the rest of the reply was lost"
            if was_reset
            else describe_difference(reply, received)
        )
        raise CheckFailed(f"the reply, {reply}", f"{len(received):,} bytes were received; {lost}")
    if was_reset:
        return Note(Verdict.NON_STRICT, "the reply was followed by RST, which destroys it on a slow path")
    return None


def _answered_prefix(ctx: ServerContext, sent: bytes, received: bytes) -> int:
    """Return the length of the beginning of the sent data to which the reply is correct, or 0.

    Without framing, a server may take any data that it receives at once for its message.
    """
    oracle = ctx.oracle
    if ctx.contract.framing != "none" or not (oracle.accepts_any_message and oracle.exact_replies):
        return 0
    sizes = (len(received), *range(len(sent), 0, -1))
    return next((size for size in sizes if oracle.reply(sent[:size]).matches(received)), 0)


# The process -------------------------------------------------------------------------------------


async def descriptor_leak(ctx: ServerContext) -> Note | None:
    """Connect a thousand clients one after another, and count the server's descriptors."""
    for number in range(5):  # until the server has opened all descriptors that it needs
        await ctx.expect_served("early", number)
    before = ctx.fd_count()
    for done in range(_FD_CHECK_INTERVAL, 1000 + 1, _FD_CHECK_INTERVAL):
        for number in range(done - _FD_CHECK_INTERVAL, done):
            await ctx.expect_served(f"client {number + 1}", number)
        # Checked in between, so that a server that leaks (perhaps processes) fails before all clients.
        spare = _SPARE_FDS if done == 1000 else _FD_CHECK_INTERVAL
        if not await ctx.wait_until(partial(_fd_count_at_most, ctx, before + spare), ctx.timeout):
            raise CheckFailed(
                f"about {before} open descriptors, as before",
                f"{ctx.fd_count():,} are open after {done:,} connections, which are all closed",
                timed_out=True,
            )
    return None


def _fd_count_at_most(ctx: ServerContext, limit: int) -> bool:
    return ctx.fd_count() <= limit


async def zombies(ctx: ServerContext) -> Note | None:
    """Close thirty clients while the server is stopped, so that its child processes exit at the same time.

    Two more clients follow, for servers that wait for their children at the next accept().
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
        raise CheckFailed("no zombie processes", f"there are {ctx.zombie_count()} zombies", timed_out=True)
    return None


async def restart(ctx: ServerContext) -> Note | None:
    """Kill the server while it has connections, and start it again."""
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
        last_line = error.stderr_tail.rpartition("\n")[2]
        happened = f"{error.reason}: {last_line}" if last_line else error.reason
        raise CheckFailed("the server to bind the same port again", happened) from error
    await ctx.expect_served()
    return None


async def sigterm(ctx: ServerContext) -> Note | None:
    """Send SIGTERM while an idle client is connected."""
    await ctx.expect_served("first")
    idle = await ctx.connect("idle")
    await ctx.wait_until(ctx.is_idle, _IDLE_TIMEOUT)  # until it has accepted, and forked if it does
    await ctx.expect_running()
    await ctx.expect_stop(lambda limit: _close_on_eof(idle, limit))
    return None


async def _close_on_eof(idle: RecordedSocket, timeout: float) -> None:
    """Close when the server sends FIN, as a client without requests does."""
    if await idle.wait_closed_by_peer(timeout):
        idle.close()


async def idle_cpu(ctx: ServerContext) -> Note | None:
    """Send no requests, while an idle client is connected."""
    await ctx.expect_served("first")
    await ctx.connect("idle")
    await asyncio.sleep(0.5)
    await ctx.expect_running()
    await ctx.expect_no_busy_loop()
    return None


async def descriptor_limit(ctx: ServerContext) -> Note | None:
    """Lower the descriptor limit, connect more clients than it allows, and close them."""
    await ctx.expect_served("first")
    pid = ctx.program.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_before = ctx.fd_count()
    limit = open_before + _SPARE_FDS
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    ctx.transcript.add("check", f"lowers its descriptor limit to {limit}")
    try:
        # With small receive buffers, so that a server with an endless reply soon fills them and waits.
        flood = [ctx.start_connect(f"client {number + 1}", small_rcvbuf=True) for number in range(40)]
        share = await ctx.cpu_share(windows=20 if ctx.contract.endless else 2, seconds=0.5)
        ctx.transcript.add("check", f"it uses {share:.0%} of a processor meanwhile")
        for client in flood:
            client.close()
        # Until the server has closed them, too; one that does not is asked all the same.
        await ctx.wait_settled(lambda: ctx.fd_count() <= open_before and ctx.is_idle(), ctx.timeout)
        await ctx.expect_still_served("descriptors had run out and were free again")
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    if share > 0.7:
        happened = f"it retries at once, and uses {share:.0%} of a processor"
        raise CheckFailed("a pause when accept() fails with EMFILE", happened, timed_out=True)
    return None


async def many_descriptors(ctx: ServerContext) -> Note | None:
    """Connect more than 1,024 clients: select() cannot watch descriptors of 1,024 or more (select(2))."""
    soft, hard = resource.prlimit(ctx.program.pid, resource.RLIMIT_NOFILE)
    if soft < 1200:
        if hard < 1200:
            return Note(Verdict.SKIP, f"its hard limit is {hard:,} descriptors")
        resource.prlimit(ctx.program.pid, resource.RLIMIT_NOFILE, (1200, hard))
    clients = []
    for number in range(1100):
        clients.append(await ctx.connect(f"client {number + 1}"))
        if number % 20 == 19:
            await asyncio.sleep(0.01)
    await ctx.exchange(clients[-1], ctx.message(1))
    for client in clients:
        client.close()
    await ctx.expect_still_served("1,100 connections")
    return None
