"""Stimuli for datagram proxies: each datagram passes on as one, and each reply goes to its own client.

A proxy for datagrams has no connection that says to which client a datagram of the upstream belongs: it needs
a socket of its own for each client (RFC 768 has ports only for that), or else it must know the protocol.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from contextlib import suppress
from typing import Any, Final

from bothends.check.case import CheckFailed, Note, Verdict
from bothends.check.subjects.datagram_proxy_context import DatagramProxyContext, name_address
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.relayed_bytes import make_text
from bothends.check.transcript import quote_bytes

_SURPLUS_WAIT: Final = 0.15  # seconds until a surplus datagram is seen, which only a wrong proxy sends
_SIZES: Final = (1, 512, 1472, 2048, 8192, 65_507)  # bytes: usual buffers, and the largest (RFC 791, RFC 768)
_PIECES: Final = (b"first", b"the second one", b"3rd")
_CROWD: Final = 50  # clients
_ONE_CLIENT: Final = 20  # datagrams of one client
_BURST: Final = 2000  # datagrams
_IDLE: Final = 4.0  # seconds
_LATER: Final = 1.0  # seconds
_SPARE_FDS: Final = 16
_MAX_IDLE_CPU: Final = 0.7  # of a processor
_RESENDS: Final = 4  # a pending ICMP error may cost a datagram (udp(7)), and clients send again
_RESEND_WAIT: Final = 0.3  # seconds
_LAST_CLIENT: Final = "replies to the client that sent last, whichever asked"


async def one_exchange(ctx: DatagramProxyContext) -> Note | None:
    """Pass one datagram in each direction, and look at the source address of the reply."""
    loop = asyncio.get_running_loop()
    request, reply = b"request of the CHECK", b"reply of the CHECK"
    proxy = (ctx.server.endpoint.host, ctx.server.endpoint.port)
    with ctx.new_socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        ctx.transcript.add("client", f"sends {quote_bytes(request)}")
        sock.sendto(request, proxy)
        address = await ctx.expect_at_upstream(request)
        ctx.send_from_upstream(reply, address)
        try:
            data, source = await asyncio.wait_for(loop.sock_recvfrom(sock, 65_536), ctx.timeout)
        except TimeoutError:
            happened = f"nothing arrived within {ctx.timeout:g} s"
            raise CheckFailed("the client to receive the reply", happened, timed_out=True) from None
        ctx.transcript.add("client", f"receives {quote_bytes(data)} from {name_address(source)}")
    if data != reply:
        raise CheckFailed(f"the client to receive {quote_bytes(reply)}", f"it received {quote_bytes(data)}")
    if source != proxy:
        raise CheckFailed(
            f"a reply from {name_address(proxy)}, where the client sent its request",
            f"it comes from {name_address(source)}: a connected client does not receive it",
            cause="replies from the socket that it has to the upstream, not from the one that listens",
        )
    with suppress(TimeoutError):
        surplus, _ = await ctx.receive_at_upstream(_SURPLUS_WAIT)
        raise CheckFailed("nothing more at the upstream", f"{quote_bytes(surplus)} arrived")
    return None


async def sizes(ctx: DatagramProxyContext) -> Note | None:
    """Pass datagrams of several sizes in both directions, up to the largest."""
    client = await ctx.connect("client")
    for size in _SIZES:
        address = await ctx.pass_up(client, make_text(f"up {size}", size))
        await ctx.pass_down(address, client, make_text(f"down {size}", size))
    return None


async def empty(ctx: DatagramProxyContext) -> Note | None:
    """Pass empty datagrams, which are datagrams (RFC 768), in both directions."""
    eof = "takes an empty datagram for EOF"
    client = await ctx.connect("client")
    address = await ctx.pass_up(client, b"hello")
    await ctx.pass_up(client, b"", mistake=eof)
    await ctx.pass_down(address, client, b"", mistake=eof)
    await ctx.pass_up(client, b"after it", mistake=eof)
    await ctx.pass_down(address, client, b"after it", mistake=eof)
    return None


async def boundaries(ctx: DatagramProxyContext) -> Note | None:
    """Send several datagrams at once, and count them at the other end."""
    client = await ctx.connect("client")
    address = await ctx.pass_up(client, b"hello")
    for each in _PIECES:
        await client.send(each)
    arrived = [await _next_at_upstream(ctx) for _ in _PIECES]
    _expect_pieces("upstream", arrived)
    for each in _PIECES:
        ctx.send_from_upstream(each, address)
    arrived = [await _next_at_client(client) for _ in _PIECES]
    _expect_pieces("client", arrived)
    return None


async def _next_at_upstream(ctx: DatagramProxyContext) -> bytes:
    with suppress(TimeoutError):
        return (await ctx.receive_at_upstream(ctx.timeout))[0]
    return b""


async def _next_at_client(client: RecordedSocket) -> bytes:
    with suppress(TimeoutError, OSError):
        data = await client.receive(client.timeout)
        client.note(f"receives {quote_bytes(data)}")
        return data
    return b""


def _expect_pieces(name: str, arrived: list[bytes]) -> None:
    if sorted(arrived) == sorted(_PIECES):
        return
    found = ", ".join(quote_bytes(each) for each in arrived if each) or "nothing"
    joined = any(len(each) > max(map(len, _PIECES)) for each in arrived)
    raise CheckFailed(
        f"{len(_PIECES)} datagrams at the {name}, as they were sent",
        f"these arrived: {found}",
        timed_out=not joined and b"" in arrived,
        cause="joins datagrams, as if they were a stream" if joined else "drops or splits datagrams",
    )


async def two_clients(ctx: DatagramProxyContext) -> Note | None:
    """Let two clients send, and reply to the first one first, then the other way round."""
    first, second = await ctx.connect("client first"), await ctx.connect("client second")
    address = await ctx.pass_up(first, b"request of the first")
    other = await ctx.pass_up(second, b"request of the second")
    _expect_different(address, other)
    try:
        await ctx.pass_down(address, first, b"reply to the first", mistake=_LAST_CLIENT)
    except CheckFailed as failure:
        with suppress(TimeoutError, OSError):
            astray = await second.receive(_SURPLUS_WAIT)
            second.note(f"receives {quote_bytes(astray)}")
            failure.happened = f"{second.name} received {quote_bytes(astray)} instead"
        raise
    await ctx.pass_down(other, second, b"reply to the second", mistake=_LAST_CLIENT)
    await ctx.pass_up(first, b"again of the first")
    await ctx.pass_down(other, second, b"unasked to the second", mistake=_LAST_CLIENT)
    await ctx.pass_down(address, first, b"reply to the first again", mistake=_LAST_CLIENT)
    return None


def _expect_different(first: Any, second: Any) -> None:
    if first == second:
        raise CheckFailed(
            "an address of its own for each client at the upstream",
            f"the datagrams of two clients come from {name_address(first)}",
            cause="one socket to the upstream for all clients: a reply does not say which of them asked",
        )


async def several_replies(ctx: DatagramProxyContext) -> Note | None:
    """Send three replies to one datagram, and another one a second later."""
    client = await ctx.connect("client")
    address = await ctx.pass_up(client, b"one request")
    once = "passes on one reply for each request"
    for number in range(3):
        await ctx.pass_down(address, client, b"reply %d" % number, mistake=once)
    await asyncio.sleep(_LATER)
    await ctx.pass_down(address, client, b"a late one", mistake=once)
    return None


async def one_session(ctx: DatagramProxyContext) -> Note | None:
    """Send many datagrams from one client, and look at their source addresses and at the descriptors."""
    client = await ctx.connect("client")
    addresses = {await ctx.pass_up(client, b"datagram 0")}
    before = ctx.fd_count() if ctx.server.program else 0
    for number in range(1, _ONE_CLIENT):
        addresses.add(await ctx.pass_up(client, b"datagram %d" % number))
    each = "opens a socket for each datagram instead of for each client"
    if len(addresses) > 1:
        found = f"{_ONE_CLIENT} datagrams of one client come from {len(addresses)} addresses"
        raise CheckFailed("one address for each client at the upstream", found, cause=each)
    if ctx.server.program and ctx.fd_count() > before + _ONE_CLIENT // 2:
        found = f"{ctx.fd_count()} are open after {_ONE_CLIENT} datagrams of one client"
        raise CheckFailed(f"about {before} open descriptors, as after its first", found, cause=each)
    return None


async def silent_upstream(ctx: DatagramProxyContext) -> Note | None:
    """Leave the datagram of one client without a reply, and serve another one."""
    first = await ctx.connect("client without a reply")
    await ctx.pass_up(first, b"no reply to this")
    try:
        await ctx.expect_served("next")
    except CheckFailed as failure:
        failure.cause = "waits for the reply before it reads the next datagram"
        raise
    await ctx.pass_up(first, b"nor to this")
    return None


async def crowd(ctx: DatagramProxyContext) -> Note | None:
    """Let many clients send, and reply to them in the opposite order."""
    clients = [await ctx.connect(f"client {number + 1}") for number in range(_CROWD)]
    loses = "loses datagrams of new clients"
    addresses = [
        await ctx.pass_up(each, f"request of {each.name}".encode(), mistake=loses) for each in clients
    ]
    for number, address in enumerate(addresses[1:]):
        _expect_different(addresses[number], address)
    for client, address in reversed(list(zip(clients, addresses, strict=True))):
        mixed = "mixes up clients: their addresses are not kept apart"
        await ctx.pass_down(address, client, f"reply to {client.name}".encode(), mistake=mixed)
    return None


async def idle_client(ctx: DatagramProxyContext) -> Note | None:
    """Send a reply some seconds after the last datagram."""
    client = await ctx.connect("client")
    address = await ctx.pass_up(client, b"request")
    await asyncio.sleep(_IDLE)
    await ctx.pass_down(address, client, b"late reply", mistake="forgets a client after a few seconds")
    return None


async def upstream_refused(ctx: DatagramProxyContext) -> Note | None:
    """Close the upstream's port for some datagrams: ICMP port unreachable is an error of the next call."""
    client = await ctx.connect("client")
    await ctx.exchange(client)
    ctx.datagram_upstream.refuse()
    ctx.transcript.add("upstream", "closes its port")
    await _send_in_vain(client)
    ctx.datagram_upstream.listen()
    ctx.transcript.add("upstream", "opens its port again")
    await _expect_served_again(ctx, client, "the upstream's port was closed for a moment")
    return None


async def upstream_later(ctx: DatagramProxyContext) -> Note | None:
    """Start the proxy before its upstream."""
    ctx.datagram_upstream.refuse()
    ctx.transcript.add("upstream", "is not there")
    await ctx.kill()
    await ctx.restart()
    client = await ctx.connect("client")
    await _send_in_vain(client)
    ctx.datagram_upstream.listen()
    ctx.transcript.add("upstream", "opens its port")
    await _expect_served_again(ctx, client, "the upstream started later than the proxy")
    return None


async def _send_in_vain(client: RecordedSocket) -> None:
    for number in range(3):
        with suppress(CheckFailed):  # the proxy may pass the error on
            await client.send(b"in vain %d" % number)
        await asyncio.sleep(0.05)


async def _expect_served_again(ctx: DatagramProxyContext, client: RecordedSocket, event: str) -> None:
    """Check that a client is served, which sends again if nothing comes, and that a new one is."""
    for _ in range(_RESENDS):
        with suppress(CheckFailed):
            await client.send(b"is the upstream there?")
        try:
            _, address = await ctx.receive_at_upstream(_RESEND_WAIT * ctx.load_factor)
        except TimeoutError:
            continue
        with suppress(TimeoutError):  # datagrams that were sent before
            while True:
                _, address = await ctx.receive_at_upstream(_SURPLUS_WAIT)
        await ctx.pass_down(address, client, b"it is")
        break
    else:
        ending = await ctx.exit_description()
        raise CheckFailed(
            f"the client to be served after {event}",
            f"the proxy exited: {ending}" if ending else f"none of {_RESENDS} datagrams arrived",
            timed_out=True,
            cause="" if ending else "gives a client up after ECONNREFUSED, or is stuck",
        )
    await ctx.expect_still_served(event)


async def client_gone(ctx: DatagramProxyContext) -> Note | None:
    """Close clients before their reply comes."""
    for number in range(3):
        client = await ctx.connect(f"client gone {number + 1}")
        address = await ctx.pass_up(client, b"request %d" % number)
        client.close()
        ctx.send_from_upstream(b"reply %d" % number, address)
    await ctx.expect_still_served("clients that left before their reply came")
    return None


async def burst(ctx: DatagramProxyContext) -> Note | None:
    """Send more datagrams at once than a receive buffer holds. The loss of some is not a fault."""
    client = await ctx.connect("client")
    client.note(f"sends {_BURST:,} datagrams at once")
    for number in range(_BURST):
        with suppress(BlockingIOError, ConnectionRefusedError):
            client.socket.send(b"datagram %d" % number)
        if number % 100 == 99:
            await asyncio.sleep(0)
    arrived = 0
    with suppress(TimeoutError):
        while True:
            await ctx.datagram_upstream.receive(0.5)
            arrived += 1
    ctx.transcript.add("upstream", f"receives {arrived:,} of them")
    await ctx.expect_still_served(f"{_BURST:,} datagrams at once")
    return Note(Verdict.PASS, f"{arrived:,} of {_BURST:,} arrived, the others were lost")


async def descriptor_limit(ctx: DatagramProxyContext) -> Note | None:
    """Lower the descriptor limit, and let more clients send than it allows."""
    first = await ctx.connect("client first")
    await ctx.exchange(first)
    pid = ctx.program.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    limit = ctx.fd_count() + _SPARE_FDS
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    ctx.transcript.add("check", f"lowers its descriptor limit to {limit}")
    for number in range(_SPARE_FDS * 3):
        client = await ctx.connect(f"client {number + 1}")
        with suppress(CheckFailed):
            await client.send(b"one of many")
    await _drain_upstream(ctx)
    share = await ctx.cpu_share(windows=2, seconds=0.5)
    if share > _MAX_IDLE_CPU:
        found = f"it uses {share:.0%} of a processor"
        raise CheckFailed("the proxy to wait when socket() fails with EMFILE", found, timed_out=True)
    try:
        await ctx.exchange(first)
    except CheckFailed as failure:
        ending = await ctx.exit_description()
        raise CheckFailed(
            "the first client to be served after descriptors had run out",
            f"{failure.happened}{f'; the proxy exited: {ending}' if ending else ''}",
            timed_out=failure.timed_out,
        ) from failure
    try:
        await ctx.expect_served("new")
    except CheckFailed:
        text = "without a free descriptor, new clients are not served until it forgets an old one"
        return Note(Verdict.PASS, text)  # so that forged addresses do not drive out clients that are served
    return None


async def _drain_upstream(ctx: DatagramProxyContext) -> None:
    with suppress(TimeoutError):
        while True:
            await ctx.datagram_upstream.receive(_SURPLUS_WAIT)
