"""Find out by trying why a server fails the first case, on which all others depend.

It may greet each client although the contract has no greeting, wait for the end of a line or of the stream,
reply to another port, or change the reply in a way that is plain.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from bothends.check.case import CheckFailed
from bothends.check.evidence import explain_reply
from bothends.check.subjects.loopback_capture import LoopbackCapture
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.subjects.server_context import ServerContext
from bothends.check.transcript import quote_bytes

_GREETING_WAIT: Final = 0.5  # of the timeout: a greeting is sent at once


async def explain_gate(case: AbstractAsyncContextManager[ServerContext], timeout: float) -> str:
    """Return why a server fails the first case, or "" if trying shows nothing.

    Args:
        case: the context of a case, with a server for these attempts.
        timeout: seconds to wait for data.
    """
    with suppress(CheckFailed, OSError):
        async with case as ctx:
            if ctx.contract.is_datagram and not ctx.contract.has_answer:
                return ""
            if ctx.contract.is_datagram:
                return await _explain_datagram(ctx, timeout)
            return await _explain_stream(ctx, timeout)
    return ""


async def _receive(client: RecordedSocket, timeout: float) -> bytes:
    try:
        return await client.receive(timeout)
    except TimeoutError:
        return b""


async def _explain_stream(ctx: ServerContext, timeout: float) -> str:
    client = await ctx.connect()
    greeted = not ctx.contract.speaks_first and await _receive(client, timeout * _GREETING_WAIT)
    if greeted:
        return f"sends {quote_bytes(greeted)} before it has received anything: the contract has no greeting"
    if not ctx.contract.has_answer:
        return ""
    message = ctx.message()
    request, reply = ctx.request(message), ctx.reply(message)
    await client.send(request)
    if received := await _receive(client, timeout):
        if reply.pattern is not None or reply.silent or reply.matches(received):
            return ""
        with suppress(TimeoutError, OSError):
            while len(received) < len(reply.exact) and (more := await client.receive(timeout / 4)):
                received += more
        return explain_reply(reply.exact, received, request, message)
    ending = await ctx.exit_description()
    if ending or ctx.contract.speaks_first:
        return ""
    for more, waited_for in ((b"\n", "a newline"), (b"\r\n", "CR LF"), (b"\0", "a NUL byte")):
        await client.send(more)
        if await _receive(client, timeout):
            return f"waits for {waited_for} at the end of a message, which this contract does not have"
    client.shutdown_write()
    if await _receive(client, timeout):
        return "waits for the client's EOF before it replies, although the message is complete"
    return ""


async def _explain_datagram(ctx: ServerContext, timeout: float) -> str:
    client = await ctx.connect()
    message = ctx.message()
    reply = ctx.reply(message)
    if ctx.server.network is None:
        await client.send(message)
        received, elsewhere = await _receive(client, timeout), 0
    else:
        with LoopbackCapture(ctx.server.network) as capture:
            await client.send(message)
            received = await _receive(client, timeout)
            port, own = ctx.server.endpoint.port, client.socket.getsockname()[1]
            sent = [each for each in capture.read() if each.source_port == port and each.transport == "udp"]
            elsewhere = next((each.destination_port for each in sent if each.destination_port != own), 0)
    if elsewhere:
        return f"replies to port {elsewhere}, not to the port from which the request came"
    if received and not reply.pattern and not reply.silent and not reply.matches(received):
        return explain_reply(reply.exact, received, message, message)
    return ""
