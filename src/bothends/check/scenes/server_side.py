"""Play a scene from the server's side: the program is its client, and the checker sends what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NoReturn

from bothends.check.case import CheckFailed
from bothends.check.header_framing import body_of
from bothends.check.same_cause import Instead, WrongAnswer
from bothends.check.scenes.datagram_path import Disturbance
from bothends.check.scenes.exchanges import text_instead
from bothends.check.scenes.inbox import Inbox, StreamInbox, TextMatch, WrongMessage, make_inbox
from bothends.check.scenes.samples import render_sample
from bothends.check.scenes.segmentation import WHOLE, Segmentation
from bothends.check.scenes.spec import Scene
from bothends.check.scenes.steps import (
    Connect,
    EndConnection,
    Ending,
    ExpectEnding,
    ExpectInAnyOrder,
    ExpectNothing,
    ExpectText,
    Optional,
    Pause,
    SendTexts,
    Step,
)
from bothends.check.subjects.client_under_test import ClientContext
from bothends.check.subjects.recorded_socket import RecordedSocket
from bothends.check.transcript import quote_bytes
from bothends.errors import errno_text

_SETTLE: Final = 0.1  # seconds of silence after which a text without framing is complete


class ServerSidePlayer:
    """One playing of a scene with a client under test.

    Args:
        values: what the scene remembers.
        segmentation: how the texts reach the client on a stream.
        joined: consecutive texts for the client are one write.
        disturbance: what happens to datagrams.
    """

    def __init__(
        self,
        ctx: ClientContext,
        scene: Scene,
        values: Mapping[str, bytes],
        segmentation: Segmentation = WHOLE,
        *,
        joined: bool = False,
        disturbance: Disturbance = Disturbance.NONE,
    ) -> None:
        self._ctx = ctx
        self._scene = scene
        self._values = dict(values)
        self._segmentation = segmentation
        self._joined = joined
        self._disturbance = disturbance
        self._unsent = b""  # texts that the next write carries, too
        self._sent_before = b""  # the last datagram that was sent
        self._received_before: bytes | None = None  # the last datagram that was expected
        self._listener, self.endpoint = ctx.listen()
        self._conn: RecordedSocket | None = None
        self._peer: Any = None  # the address of a datagram client
        self._inbox = self._new_inbox()
        self._end = ""  # how the client ended the connection
        self.sent: list[bytes] = []
        """The texts that the client received."""

    def _new_inbox(self) -> Inbox:
        contract = self._ctx.contract
        return make_inbox(
            contract.framer,
            datagrams=contract.is_datagram,
            delimited=contract.is_delimited,
            of_client=True,
        )

    async def play(self) -> None:
        """Play all steps of the scene. The client must have been started.

        Raises:
            CheckFailed: the client did not do what a line says.
        """
        steps = self._scene.all_steps
        at = 0
        while at < len(steps):
            step = steps[at]
            if isinstance(step, Optional):
                at = await self._play_optional(at)
            else:
                await self._play_step(step, steps[at + 1] if at + 1 < len(steps) else None)
                at += 1

    async def _play_optional(self, at: int) -> int:
        """Receive what is optional from step `at` on, or what follows it. Returns: where to continue."""
        steps = self._scene.all_steps
        blocks = list(takewhile(lambda step: isinstance(step, Optional), steps[at:]))
        following = steps[at + len(blocks)]
        texts = [block.first for block in blocks if isinstance(block, Optional)]
        if isinstance(following, SendTexts):
            texts.append(following)
        found = await self._expect_text(*texts, may_end=isinstance(following, EndConnection))
        if found is None:
            return at + len(blocks)
        chosen = steps[at + found]
        if isinstance(chosen, Optional):
            rest = chosen.steps[1:]
            for number, step in enumerate(rest, start=1):
                try:
                    await self._play_step(step, rest[number] if number < len(rest) else None)
                except CheckFailed as failure:
                    # A client that says goodbye may close without reading the reply.
                    if number < len(rest) or failure.timed_out or not isinstance(following, EndConnection):
                        raise
                    self._end = "the client closed the connection"
        return at + found + 1

    async def _play_step(self, step: Step, following: Step | None) -> None:
        try:
            await self._play(step, following)
        except CheckFailed as failure:
            failure.answer = failure.answer or self._wrong_answer(step)
            raise

    def _wrong_answer(self, step: Step) -> WrongAnswer:
        """Return what the client did at a line that has failed."""
        if not self._inbox.is_empty:
            return text_instead(step.line, self._inbox.pending, self.sent)
        return WrongAnswer(step.line, Instead.ENDED if self._end else Instead.NOTHING)

    async def _play(self, step: Step, following: Step | None) -> None:
        match step:
            case SendTexts():
                await self._expect_text(step)
            case ExpectText():
                await self._send(step, more=self._joined and isinstance(following, ExpectText))
            case ExpectInAnyOrder():
                for each in step.expected:
                    await self._send(each)
            case ExpectNothing():
                await asyncio.sleep(step.seconds)
            case ExpectEnding():
                await self._end_connection(step)
            case EndConnection():
                await self._expect_ending(step)
            case Connect():
                await self._accept_again(step)
            case Pause() if self._scene.spec.role == "client":
                await self._expect_silence(step)

    async def finish(self) -> None:
        """Close the connection as the contract says, at once or after the client."""
        if self._conn is not None:
            if self._ctx.contract.persistent and not self._end:
                await self._conn.wait_closed_by_peer(self._ctx.timeout)
            self._conn.close()

    # The server's part ---------------------------------------------------------------------------

    async def _connection(self, step: Step) -> RecordedSocket:
        if self._conn is None:
            try:
                self._conn = await self._ctx.accept(self._listener)
            except CheckFailed as failure:
                self._fail([step], f"the client did not connect: {failure.happened}", failure.timed_out)
        return self._conn

    async def _accept_again(self, step: Connect) -> None:
        """Accept a connection, after the one before has ended."""
        if self._ctx.contract.is_datagram:
            return
        if self._conn is not None:
            self._conn.close()
        self._conn, self._inbox, self._end = None, self._new_inbox(), ""
        await self._connection(step)

    async def _send(self, step: ExpectText, *, more: bool = False) -> None:
        """Send a text. `more`: it is sent together with the next one."""
        text = render_sample(step, self._values, self._scene.spec.examples)
        self.sent.append(body_of(text) if self._ctx.contract.framing == "headers" else text)
        if self._ctx.contract.is_datagram:
            if self._peer is None:
                self._fail([step], "the client has sent no datagram, so its address is unknown")
            if self._disturbance in (Disturbance.DUPLICATES, Disturbance.DELAY):
                await self._expect_no_datagram(step)
            self._send_datagram(text)
            return
        conn = await self._connection(step)
        self._unsent += self._ctx.contract.encode(text)
        if more:
            return
        data, self._unsent = self._unsent, b""
        try:
            await conn.send_pieces(self._segmentation.cut(data), self._segmentation.interval(len(data)))
        except CheckFailed as failure:
            self._fail([step], failure.happened, failure.timed_out)

    async def _expect_no_datagram(self, step: Step) -> None:
        """Expect that a reply which the client got twice, or an old one, is not taken for this one."""
        await self._read(step, _SETTLE)
        if not self._inbox.is_empty:
            self._fail([step], f"before this reply, the client sent {quote_bytes(self._inbox.pending)}")

    def _send_datagram(self, text: bytes) -> None:
        late = self._sent_before if self._disturbance is Disturbance.DELAY else b""
        copies = 1 + (self._disturbance is Disturbance.DUPLICATES)
        for each in (*filter(None, (late,)), *[text] * copies):
            self._ctx.send_datagram(self._listener, each, self._peer)
        self._sent_before = text

    async def _end_connection(self, step: ExpectEnding) -> None:
        conn = await self._connection(step)
        if step.ending is Ending.HALF_CLOSE:
            conn.shutdown_write()
        elif step.ending is Ending.CLOSE:
            conn.close()
        else:
            conn.reset()
        if step.ending is not Ending.HALF_CLOSE:
            self._end = "the server has closed the connection"

    # The client's part ---------------------------------------------------------------------------

    async def _expect_text(self, *steps: SendTexts, may_end: bool = False) -> int | None:
        """Receive the text of one of the steps; if datagrams are lost, twice, because the first one is.

        Returns: the index of the step, or None if the connection has ended instead, with `may_end`.
        """
        found = await self._receive_text(steps, may_end=may_end)
        if found is not None and self._disturbance is Disturbance.LOSS:
            self._ctx.transcript.add("server", "this datagram is lost: the client must send it again")
            self._received_before = None
            await self._receive_text(steps[found : found + 1])
        return found

    async def _receive_text(self, steps: Sequence[SendTexts], *, may_end: bool = False) -> int | None:
        deadline = asyncio.get_running_loop().time() + self._ctx.timeout
        texts = [step.texts[0] for step in steps]
        final = False
        while True:
            taken = self._inbox.take(
                texts,
                self._values,
                final=final or bool(self._end),
                eventually=any(step.eventually for step in steps),
            )
            if isinstance(taken, TextMatch):
                self._values.update(taken.values)
                await self._skip_newline()
                return taken.index
            if isinstance(taken, WrongMessage):
                expected = " or ".join(map(str, steps))
                answer = text_instead(steps[0].line, taken.data, self.sent)
                raise CheckFailed(expected, f"the client sent {taken}", answer=answer)
            if self._end:
                if may_end and self._inbox.is_empty:
                    return None
                self._fail(steps, f"{self._end}; {self._describe_pending()}")
            remaining = max(0.01, deadline - asyncio.get_running_loop().time())
            settling = not final and not self._inbox.is_empty
            if await self._read(steps[0], min(_SETTLE, remaining) if settling else remaining):
                final = False
            elif settling:
                final = True
            elif not self._end:
                self._fail(steps, self._describe_pending(), timed_out=True)

    async def _skip_newline(self) -> None:
        """Skip the end of a line that the client may send after a text, although there is no framing."""
        if isinstance(self._inbox, StreamInbox):
            if self._inbox.is_empty and self._conn is not None and not self._end:
                try:
                    self._inbox.feed(await self._conn.receive(_SETTLE / 2))
                except (TimeoutError, OSError):
                    return
            self._inbox.skip_line_end()

    async def _read(self, step: Step, timeout: float) -> bool:
        """Receive a chunk or a datagram. Returns: whether one was received in time."""
        try:
            if self._ctx.contract.is_datagram:
                data, self._peer = await self._ctx.receive_datagram(self._listener, timeout)
                data = data.rstrip(b"\r\n")
                if self._disturbance is not Disturbance.NONE and data == self._received_before:
                    return True  # its timeout was shorter than the way of the reply
                self._received_before = data
                self._inbox.feed(data)
                return True
            conn = await self._connection(step)
            data = await conn.receive(timeout)
        except TimeoutError:
            return False
        except OSError as error:
            self._end = f"recv() failed: {errno_text(error.errno or 0)}"
            conn.note(self._end)
            return False
        if not data:
            self._end = "the client closed the connection"
            conn.note("receives EOF (FIN)")
            return False
        conn.note(f"receives {quote_bytes(data)}")
        self._inbox.feed(data)
        return True

    async def _expect_silence(self, step: Pause) -> None:
        """Expect that the client sends nothing, in a scene that was written for clients."""
        if not self._inbox.is_empty or await self._read(step, step.seconds):
            self._fail([step], f"the client sent {quote_bytes(self._inbox.pending)}")

    async def _expect_ending(self, step: EndConnection) -> None:
        while self._inbox.is_empty and not self._end:
            if not await self._read(step, self._ctx.timeout) and not self._end:
                self._fail([step], "the client left the connection open", timed_out=True)
        if not self._inbox.is_empty:
            self._fail([step], f"the client sent {quote_bytes(self._inbox.pending)}")

    def _describe_pending(self) -> str:
        if self._inbox.is_empty:
            return "the client sent nothing"
        missing = self._inbox.missing
        return f"the client sent only {quote_bytes(self._inbox.pending)}{f', {missing}' if missing else ''}"

    def _fail(self, steps: Sequence[Step], happened: str, timed_out: bool = False) -> NoReturn:
        raise CheckFailed(" or ".join(map(str, steps)), happened, timed_out=timed_out)
