"""Play a scene against a server: each of its clients has a socket, and each line is a step.

A failure names the line of the scene, and what was received instead. A scene states everything that its
clients receive: data that arrives after its last line is a failure, too.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from bothends.check.case import CheckFailed, NotListening
from bothends.check.same_cause import Instead, WrongAnswer
from bothends.check.scenes.datagram_path import Disturbance
from bothends.check.scenes.exchanges import text_instead
from bothends.check.scenes.inbox import Inbox, StreamInbox, TextMatch, WrongMessage, make_inbox
from bothends.check.scenes.segmentation import WHOLE, Segmentation
from bothends.check.scenes.spec import Scene
from bothends.check.scenes.steps import (
    Connect,
    EndConnection,
    Ending,
    ExpectEnding,
    ExpectInAnyOrder,
    ExpectNothing,
    ExpectSame,
    ExpectText,
    Pause,
    Restart,
    SendTexts,
    Step,
)
from bothends.check.scenes.template import TextTemplate
from bothends.check.subjects.listening import listeners
from bothends.check.subjects.recorded_socket import RecordedSocket, run_concurrently
from bothends.check.subjects.server_context import SIGTERM_TIMEOUT, ServerContext
from bothends.check.transcript import quote_bytes
from bothends.endpoints import Endpoint
from bothends.errors import ServiceError, errno_text

_SURPLUS_WAIT: Final = 0.15  # seconds until surplus data is seen, which only a wrong server sends
_SETTLE: Final = 0.1  # seconds of silence after which a pattern has matched all that it can
_SAME_SILENCE: Final = 0.3  # seconds of silence, if the reference server sends nothing
_NOT_ACCEPTED: Final = "a connection that the server does not accept"
_ONE_AT_A_TIME: Final = (
    "serves one client at a time: it has not accepted a connection, which waits in its queue"
)
_CLOSED: Final = "the server closed the connection"
_RESEND_AFTER: Final = 0.2  # seconds without a reply, from a program that may lose datagrams
_GLANCE: Final = 0.01  # seconds to see what has arrived already
_ORDER_WAIT: Final = 0.3  # seconds: more than a waiting server needs to take a text
_FLOOD: Final = 16 << 20  # bytes: more than the buffers of a connection hold
_FLOOD_STALL: Final = 0.5  # seconds


@dataclass
class _Participant:
    """A client of the scene.

    `end`: how the server ended its connection, or empty; `unanswered`: the datagrams since the last reply;
    `resends`: how often they were sent again; `repeated`: replies of which more may arrive, because their
    requests were sent again; `lost`: a reply to them was discarded; `earlier`: the datagrams of its last two
    lines;
    `refused`: the server replied and closed before it had a whole text.
    """

    name: str
    inbox: Inbox
    socket: RecordedSocket
    end: str = ""
    unanswered: list[bytes] = field(default_factory=list)
    resends: int = 0
    repeated: Counter[bytes] = field(default_factory=Counter)
    lost: bool = False
    refused: bool = False
    earlier: deque[list[bytes]] = field(default_factory=lambda: deque(maxlen=2))


class SceneMismatch(CheckFailed):
    """Another text was received than a line says. Fields: `line`, its number, and `received`."""

    def __init__(self, expected: str, happened: str, line: int, received: bytes) -> None:
        super().__init__(expected, happened)
        self.line = line
        self.received = received


class ScenePlayer:
    """One playing of a scene.

    Args:
        segmentation: how the texts reach the server on streams.
        disturbance: what happens to datagrams.
        suffix: is added to the names of its clients in the transcript.
        timeout_factor: by which steps may take longer, if many are played at once.
        small_rcvbuf: its clients use the smallest receive buffer.
        beside: it is played beside clients that may keep the server from accepting others.
    """

    def __init__(
        self,
        ctx: ServerContext,
        scene: Scene,
        segmentation: Segmentation = WHOLE,
        *,
        disturbance: Disturbance = Disturbance.NONE,
        suffix: str = "",
        timeout_factor: float = 1.0,
        small_rcvbuf: bool = False,
        beside: bool = False,
    ) -> None:
        self._ctx = ctx
        self._beside = beside
        self._scene = scene
        self._segmentation = segmentation
        self._disturbance = disturbance
        self._suffix = suffix
        self._timeout_factor = timeout_factor
        self._small_rcvbuf = small_rcvbuf
        self._unsent = b""  # the rest of a text of which only the first half was sent
        self._participants: dict[str, _Participant] = {}
        self._values: dict[str, bytes] = {}
        self._ports: dict[str, int] = {}  # of clients that connect to another port
        self._listeners: dict[str, socket.socket] = {}  # of upstreams
        for name in scene.spec.upstreams:
            listener, where = ctx.listen()
            self._listeners[name] = listener
            self._values |= {
                name: f"{where.host}:{where.port}".encode(),
                f"{name}_port": str(where.port).encode(),
            }
        self._sent: list[bytes] = []
        self._last_line = 0
        self._acted_last = ""  # the client that did the last step, if it sent something or ended
        self._loop = asyncio.get_running_loop()
        # Plays the same steps with the reference server.
        self._reference = ScenePlayer(ctx.reference, scene) if ctx.reference else None

    async def play(self, steps: Sequence[Step] | None = None) -> None:
        """Play these steps, by default all of the scene, and check that nothing follows.

        Raises:
            CheckFailed: the server did not do what a line says.
        """
        for step in self._scene.steps if steps is None else steps:
            await self.step(step)
        await self.expect_nothing_more()

    async def step(self, step: Step) -> None:
        """Play one step. See `play`.

        Raises:
            ServiceError: the reference server does not do what the step says.
        """
        try:
            await self._step(step)
        except CheckFailed as failure:
            failure.answer = self._wrong_answer(step, failure)
            queue = self._ctx.accept_queue() if failure.timed_out and not self._beside else None
            if queue is not None and queue.waiting:
                failure.crash, failure.cause = _NOT_ACCEPTED, _ONE_AT_A_TIME
            raise

    async def _step(self, step: Step) -> None:
        self._last_line = step.line
        await self._keep_order(step)
        if isinstance(step, ExpectSame):
            await self._expect_same(step)
            return
        if self._reference is not None:
            try:
                await self._reference.step(step)
            except CheckFailed as failure:
                raise ServiceError("the reference server", f"{failure}") from failure
        match step:
            case SendTexts():
                await self._send(step)
            case ExpectText():
                await self._expect_texts(step.client, [step])
            case ExpectInAnyOrder():
                await self._expect_in_any_order(step)
            case ExpectNothing():
                await self._expect_nothing(step)
            case ExpectEnding():
                await self._expect_ending(step)
            case Connect():
                self._participants.pop(step.client, None)
                if step.port is not None:
                    self._ports[step.client] = self._find_port(step, step.port)
                await self._participant(step)
            case EndConnection():
                await self._end_connection(step)
            case Pause():
                await asyncio.sleep(step.seconds)
            case Restart():
                await self._restart(step)

    async def _keep_order(self, step: Step) -> None:
        """Before a client acts after another one, wait until the server has taken what that one sent.

        Otherwise a server may take the two in either order, because they come on different connections.
        """
        acting = step.client if isinstance(step, SendTexts | EndConnection) else ""
        if acting and self._acted_last not in ("", acting) and self._timeout_factor == 1:
            await self._ctx.wait_until(self._ctx.is_idle, _ORDER_WAIT * self._ctx.load_factor)
        self._acted_last = acting

    # The clients' part ---------------------------------------------------------------------------

    async def _participant(self, step: Step) -> _Participant:
        """Return the step's client, which is connected first if necessary."""
        name = step.client
        if name not in self._participants:
            datagrams = self._scene.is_datagram(name)
            timeout = self._ctx.timeout * self._timeout_factor
            try:
                if listener := self._listeners.get(name.partition("/")[0]):
                    sock = await self._ctx.accept(listener, name + self._suffix, timeout)
                else:
                    sock = await self._ctx.connect(
                        name + self._suffix,
                        small_rcvbuf=self._small_rcvbuf,
                        timeout=timeout,
                        endpoint=await self._endpoint(name),
                        follows=datagrams and self._ctx.contract.new_port,
                    )
            except CheckFailed as failure:
                self._fail([step], failure.happened, timed_out=failure.timed_out)
            sock.set_nodelay()
            contract = self._ctx.contract
            inbox = make_inbox(
                contract.framer,
                datagrams=datagrams,
                delimited=contract.is_delimited,
                repeats=contract.resends,
            )
            self._participants[name] = _Participant(name, inbox, sock)
        return self._participants[name]

    def _find_port(self, step: Connect, text: TextTemplate) -> int:
        """Return the port that a text says."""
        port = text.render(self._values)
        if not (port.isdigit() and 0 < int(port) < 65_536):
            self._fail([step], f"{quote_bytes(port)} is not a port")
        return int(port)

    async def _endpoint(self, client: str) -> Endpoint:
        """Return the endpoint for a client: the server's, or one of the other transport."""
        own = self._ctx.server.endpoint
        transport = self._scene.spec.clients.get(client.partition("/")[0], own.scheme)
        if client in self._ports:
            return Endpoint(transport, host=own.host, port=self._ports[client])
        if transport == own.scheme:
            return own
        same_port = Endpoint(transport, host=own.host, port=own.port)
        program = self._ctx.server.program
        if program is None:
            return same_port

        def found() -> list[Endpoint]:
            return listeners(program.process_tree(), transport)

        if not await self._ctx.wait_until(lambda: bool(found()), self._ctx.timeout):
            raise CheckFailed(
                f"a server that also listens on {transport}", f"it has no {transport} socket", timed_out=True
            )
        ports = {each.port for each in found()}
        return same_port if own.port in ports or len(ports) > 1 else found()[0]

    async def _send(self, step: SendTexts) -> None:
        client = await self._participant(step)
        texts = [text.render(self._values) for text in step.texts]
        self._sent += texts
        pieces: list[bytes] = []
        try:
            if self._scene.is_datagram(step.client):
                await self._send_datagrams(client, texts)
            else:
                data = self._encode(client, texts)
                pieces = self._segmentation.cut(data)
                await client.socket.send_pieces(pieces, self._segmentation.interval(len(data)))
        except CheckFailed as failure:
            if len(pieces) > 1 and client.socket.has_input:
                client.refused = True  # the next lines say whether it may
                return
            self._fail([step], failure.happened, timed_out=failure.timed_out)

    def _encode(self, client: _Participant, texts: list[bytes]) -> bytes:
        """Return the bytes of texts on a stream."""
        for text in texts:
            client.inbox.request_sent(text)
        return b"".join(map(self._ctx.contract.encode, texts))

    async def _send_datagrams(self, client: _Participant, texts: list[bytes]) -> None:
        if self._disturbance is Disturbance.DELAY:
            await self._deliver_late(client)
        client.earlier.append(texts)
        client.lost = False
        for text in texts:
            for _ in range(1 + (self._disturbance is Disturbance.DUPLICATES)):
                await client.socket.send(text)
        client.unanswered += texts

    async def _deliver_late(self, client: _Participant) -> None:
        """Deliver copies of the datagrams before the last ones, and discard the replies to them."""
        if len(client.earlier) < 2 or not client.inbox.is_empty:
            return
        client.socket.note("copies of earlier datagrams arrive late")
        for text in client.earlier[0]:
            await client.socket.send(text)
        while await self._read(client, _SETTLE):
            pass
        client.inbox.discard()

    async def start_text(self, step: SendTexts) -> None:
        """Send the first half of a text on a stream.

        Raises:
            CheckFailed: the server does not take it.
        """
        client = await self._participant(step)
        data = self._encode(client, [text.render(self._values) for text in step.texts])
        half = max(1, len(data) // 2)
        await client.socket.send(data[:half])
        self._unsent = data[half:]

    async def finish_text(self, step: SendTexts) -> None:
        """Send the rest of the text that was started.

        Raises:
            CheckFailed: the server does not take it.
        """
        try:
            await self._participants[step.client].socket.send(self._unsent)
        except CheckFailed as failure:
            self._fail([step], failure.happened, timed_out=failure.timed_out)

    async def flood(self, name: str) -> None:
        """Send the texts of a client again and again, without reading, until the server reads no more.

        Texts that need a value of a reply are left out.
        """
        texts = [step for step in self._scene.steps if isinstance(step, SendTexts) and step.client == name]
        client = await self._participant(texts[0])
        known = [text for step in texts for text in step.texts if not text.recalls]
        data = b"".join(self._ctx.contract.encode(text.render({})) for text in known)
        flood = data * (_FLOOD // max(1, len(data)))
        await client.socket.send_without_reading(flood, _FLOOD_STALL, self._ctx.is_idle)

    async def _end_connection(self, step: EndConnection) -> None:
        client = self._participants[step.client]
        if step.ending is Ending.HALF_CLOSE:
            client.socket.shutdown_write()
            return
        # Unread data would turn the FIN of close(2) into a RST.
        while step.ending is Ending.CLOSE and await self._read(client, _GLANCE):
            pass
        del self._participants[step.client]
        if step.ending is Ending.CLOSE:
            client.socket.close()
        else:
            client.socket.reset()

    async def leave(self) -> None:
        """Reset the connection of the first client, as if it had crashed, and close those of the others.

        The server gets time to read what was sent: a RST discards the rest (RFC 9293, 3.10.7.4), so that the
        server's speed would decide what it sees.
        """
        await self._ctx.wait_until(self._ctx.is_idle, _ORDER_WAIT * self._ctx.load_factor)
        if self._reference is not None:
            await self._reference.leave()
        for number, client in enumerate(self._participants.values()):
            if number == 0:
                client.socket.reset()
            else:
                client.socket.close()
        self._participants.clear()

    async def close_when_server_does(self, timeout: float) -> None:
        """Close each stream when the server ends it, as clients do; give up after `timeout` seconds."""

        async def follow(client: _Participant) -> None:
            if await client.socket.wait_closed_by_peer(timeout):
                client.socket.close()

        streams = [each for each in self._participants.values() if not self._scene.is_datagram(each.name)]
        await run_concurrently([follow(each) for each in streams])

    async def _restart(self, step: Restart) -> None:
        """Stop the server with SIGTERM, or else SIGKILL, and start it again on the same endpoint."""
        self._ctx.signal(signal.SIGTERM, "SIGTERM")
        await self._ctx.program.wait(SIGTERM_TIMEOUT * self._ctx.load_factor)
        # A RST leaves no connection in TIME-WAIT, so the server can bind its port without SO_REUSEADDR.
        for client in self._participants.values():
            if not self._scene.is_datagram(client.name):
                client.socket.reset()
        self._participants.clear()
        await self._ctx.kill()
        try:
            await self._ctx.restart()
        except NotListening as error:
            self._fail([step], f"it could not be started again: {error}")

    # The server's part ---------------------------------------------------------------------------

    async def _read(self, client: _Participant, timeout: float) -> bool:
        """Receive a chunk into the client's inbox. Returns: whether data was received in time."""
        if client.end:
            return False
        try:
            data = await client.socket.receive(timeout)
        except TimeoutError:
            return False
        except OSError as error:
            client.end = f"recv() failed: {errno_text(error.errno or 0)}"
            client.socket.note(client.end)
            return False
        if not data and not self._scene.is_datagram(client.name):
            client.end = _CLOSED
            client.inbox.end()
            client.socket.note("receives EOF (FIN)")
            return False
        client.socket.note(f"receives {quote_bytes(data)}")
        if self._disturbance is Disturbance.LOSS and len(client.unanswered) == 1 and not client.lost:
            client.lost = True
            client.socket.note("this reply is lost: the datagram is sent again")
            await client.socket.send(client.unanswered[0])
            return True
        if client.repeated[data] > 0:
            client.repeated[data] -= 1
            return True
        client.repeated[data] += client.resends + (self._disturbance is Disturbance.DUPLICATES)
        client.unanswered.clear()
        client.resends = 0
        client.inbox.feed(data)
        return True

    async def _expect_texts(self, name: str, waiting: Sequence[ExpectText]) -> ExpectText:
        """Receive the text of one of the steps, all of this client. Returns: its step."""
        client = await self._participant(waiting[0])
        tries = self._tries(client)
        owners = [(step, choice) for step in waiting for choice in step.choices]
        choices = [choice for _, choice in owners]
        limit = self._limit(*(step.within for step in waiting))
        if tries > 1:
            limit = min(limit, _RESEND_AFTER * self._ctx.load_factor)
        deadline = self._loop.time() + limit
        final = False
        while True:
            taken = client.inbox.take(
                choices,
                self._values,
                final=final or bool(client.end),
                eventually=any(step.eventually for step in waiting),
            )
            if isinstance(taken, TextMatch):
                self._values.update(taken.values)
                return owners[taken.index][0]
            if isinstance(taken, WrongMessage):
                expected = " or ".join(map(str, waiting))
                raise SceneMismatch(expected, f"{name} received {taken}", waiting[0].line, taken.data)
            if client.end:
                self._fail(waiting, f"{client.end}; {_describe_pending(client)}")
            if client.inbox.too_much:
                self._fail(waiting, f"{name} received more than {len(client.inbox.pending):,} bytes")
            remaining = deadline - self._loop.time()
            settling = not final and not client.inbox.is_empty
            if await self._read(client, min(_SETTLE, remaining) if settling else max(remaining, _GLANCE)):
                final = False
            elif settling:
                final = True
            elif client.resends + 1 < tries and client.unanswered:
                client.resends += 1
                for text in client.unanswered:
                    await client.socket.send(text)
                deadline = self._loop.time() + limit
            elif not client.end:
                happened = f"{_describe_pending(client)} within {limit:g} s"
                if tries > 1:
                    happened = f"{_describe_pending(client)} in reply to {tries} sends"
                self._fail(waiting, happened + await self._describe_others(name, choices), timed_out=True)

    def _tries(self, client: _Participant) -> int:
        """Return how often a client sends, so that a program that loses as much as it may replies to one."""
        return 1 + self._ctx.contract.max_resends * self._scene.is_datagram(client.name)

    async def _expect_in_any_order(self, step: ExpectInAnyOrder) -> None:
        for name in dict.fromkeys(each.client for each in step.expected):
            waiting = [each for each in step.expected if each.client == name]
            while waiting:
                waiting.remove(await self._expect_texts(name, waiting))

    async def _expect_same(self, step: ExpectSame) -> None:
        """Expect what the client of the reference server receives."""
        if self._reference is None:
            raise ServiceError("the reference server", "there is none", "give its command with --against")
        line, source, name = step.line, f"{step.source}: ", step.client
        found = await self._reference.receive_any(step)
        if found is None:
            nothing = ExpectNothing(line=line, source=f"{source}nothing", client=name, seconds=_SAME_SILENCE)
            await self._expect_nothing(nothing)
        elif isinstance(found, Ending):
            await self._expect_ending(
                ExpectEnding(line=line, source=f"{source}({found.value})", client=name, ending=found)
            )
        else:
            text = TextTemplate((found,))
            await self._expect_texts(
                name,
                [ExpectText(line=line, source=f"{source}{quote_bytes(found)}", client=name, choices=(text,))],
            )

    async def receive_any(self, step: ExpectSame) -> bytes | Ending | None:
        """Return what the client receives next: a text, an end, or None if that is nothing."""
        client = await self._participant(step)
        deadline = self._loop.time() + min(self._ctx.timeout, _SAME_SILENCE * 4 * self._ctx.load_factor)
        found: bytes | None = None
        while found is None and await self._read(client, max(0.0, deadline - self._loop.time())):
            while isinstance(client.inbox, StreamInbox) and await self._read(client, _SETTLE):
                pass
            found = client.inbox.take_any()
        if found is None:
            found = client.inbox.take_any()
        if found is None and client.end:
            return Ending.CLOSE if client.end == _CLOSED else Ending.RESET
        return found

    async def _expect_nothing(self, step: ExpectNothing) -> None:
        client = await self._participant(step)
        deadline = self._loop.time() + step.seconds
        while client.inbox.is_empty or step.discard:
            client.inbox.discard()
            if not await self._read(client, max(0.0, deadline - self._loop.time())):
                break
        if not client.inbox.is_empty and not step.discard:
            self._fail([step], f"{client.name} received {quote_bytes(client.inbox.pending)}")

    async def _expect_ending(self, step: ExpectEnding) -> None:
        client = await self._participant(step)
        limit = self._limit(step.within)
        while client.inbox.is_empty and await self._read(client, limit):
            pass
        if not client.inbox.is_empty:
            self._fail([step], f"{client.name} received {quote_bytes(client.inbox.pending)}")
        if not client.end:
            self._fail([step], f"the connection was still open after {limit:g} s", timed_out=True)
        was_closed = client.end == _CLOSED
        if was_closed == (step.ending is Ending.RESET) and not client.refused:
            self._fail([step], client.end)

    async def expect_nothing_more(self) -> None:
        """Check that no client receives more than the scene says.

        Raises:
            CheckFailed: one does.
        """
        clients = list(self._participants.values())
        await asyncio.gather(*(self._read(client, _SURPLUS_WAIT) for client in clients))
        for client in clients:
            if not client.inbox.is_empty:
                raise CheckFailed(
                    f"nothing after line {self._last_line}, the last of the scene",
                    f"{client.name} received {quote_bytes(client.inbox.pending)}",
                )

    # Failures ------------------------------------------------------------------------------------

    def _limit(self, *limits: float | None) -> float:
        """Return the seconds to wait for a text: the greatest limit, or the timeout of the case."""
        case_limit = self._ctx.timeout * self._timeout_factor
        return max(case_limit if each is None else each * self._ctx.load_factor for each in limits)

    def _wrong_answer(self, step: Step, failure: CheckFailed) -> WrongAnswer:
        """Return what the server did at a line that has failed."""
        if isinstance(failure, SceneMismatch):
            return text_instead(step.line, failure.received, self._sent)
        clients = [step.client]
        if isinstance(step, ExpectInAnyOrder):
            clients = [each.client for each in step.expected]
        found = [client for name in clients if (client := self._participants.get(name)) is not None]
        for client in found:
            if not client.inbox.is_empty:
                return text_instead(step.line, client.inbox.pending, self._sent)
        if isinstance(step, ExpectEnding) and not any(client.end for client in found):
            return WrongAnswer(step.line, Instead.OPEN)
        ended = not failure.timed_out or any(client.end for client in found)
        return WrongAnswer(step.line, Instead.ENDED if ended else Instead.NOTHING)

    def _fail(self, steps: Sequence[Step], happened: str, *, timed_out: bool = False) -> NoReturn:
        raise CheckFailed(" or ".join(map(str, steps)), happened, timed_out=timed_out)

    async def _describe_others(self, name: str, choices: Sequence[TextTemplate]) -> str:
        """Return which other client received an expected text instead, or an empty string."""
        found = []
        for client in self._participants.values():
            if client.name != name and (await self._read(client, _GLANCE) or not client.inbox.is_empty):
                taken = client.inbox.take(choices, self._values, final=True)
                if isinstance(taken, TextMatch):
                    found.append(f"; {client.name} received it instead")
        return "".join(found)


def _describe_pending(client: _Participant) -> str:
    if client.inbox.is_empty:
        return f"{client.name} received nothing"
    missing = client.inbox.missing
    return (
        f"{client.name} received only {quote_bytes(client.inbox.pending)}{f', {missing},' if missing else ''}"
    )
