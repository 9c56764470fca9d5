"""One page that is open: its requests, its jobs one at a time, and the checks of its lessons.

In a class, a job waits for its turn (`fair_queue.py`). A run gives its place back a few seconds after it has
started: from then on its programs mostly wait, and all of them together are bounded by their limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from bothends.errors import Unavailable
from bothends.lab.classroom import Classroom, Student
from bothends.lab.fair_queue import FairQueue, QueuePlace
from bothends.lab.lesson_checks import RunRecord
from bothends.lab.lesson_runs import check_run
from bothends.lab.lessons import Lesson
from bothends.lab.messages import (
    MAX_REQUEST,
    Checked,
    Failed,
    Job,
    Judge,
    Keep,
    Measure,
    Queued,
    Rename,
    Reply,
    Start,
    Stop,
    decode_request,
    encode,
)
from bothends.lab.runs import RunPool, RunProcess

_MAX_REQUESTS: Final = 100  # in _RATE_WINDOW
_RATE_WINDOW: Final = 10.0  # seconds
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
_HOLD: Final = 3.0  # seconds after its start for which a run keeps its place
_MAX_CLASS_SECONDS: Final = 60.0  # of a run in a class

OnReply = Callable[[bytes], Awaitable[None]]


@dataclass
class Shared:
    """What all pages of a lab share. `queue` and `classroom`: of a class only."""

    pool: RunPool
    lessons: Mapping[str, Lesson]
    queue: FairQueue | None = None
    classroom: Classroom | None = None
    busy: set[int] = field(default_factory=set)  # the numbers of students that have a job


class Session:
    """A page. `student`: the student at it, in a class."""

    def __init__(self, websocket: WebSocket, shared: Shared, student: Student | None) -> None:
        self._websocket = websocket
        self._shared = shared
        self._student = student
        self._run: RunProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None  # ends the process of the previous run
        self._received: list[float] = []

    async def serve(self) -> None:
        """Handle requests until the page is closed."""
        try:
            while True:
                text = await self._websocket.receive_text()
                if self._is_too_fast() or len(text) > MAX_REQUEST:
                    await self._websocket.close(_POLICY_VIOLATION, "too many requests")
                    return
                await self._handle(text)
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
            return
        finally:
            await self._end()

    def _is_too_fast(self) -> bool:
        now = time.monotonic()
        self._received = [each for each in self._received if now - each < _RATE_WINDOW]
        self._received.append(now)
        return len(self._received) > _MAX_REQUESTS

    async def _handle(self, text: str) -> None:
        try:
            request = decode_request(text)
        except msgspec.DecodeError as error:
            await self._reply(encode(Failed(str(error))))
            return
        if self._student is not None:
            self._student.seen = time.time()
        match request:
            case Start() | Judge() | Measure():
                await self._start(request)
            case Keep(work):
                if self._student is not None and self._shared.classroom is not None:
                    self._shared.classroom.keep(self._student, work)
            case Rename(name):
                if self._student is not None and self._shared.classroom is not None:
                    self._shared.classroom.rename(self._student, name)
            case Stop() if self._run is None and self._task is not None:
                self._task.cancel()  # it waits for its turn
            case _ if self._run is not None:
                self._run.send(request)

    async def _start(self, job: Job) -> None:
        """Carry out a job in a task of its own, unless there is a reason not to."""
        reason = ""
        if self._task is not None and not self._task.done():
            reason = "a run is going on; stop it first"
        elif self._student is not None and self._student.number in self._shared.busy:
            reason = "another page of yours has a run going on; stop it first"
        elif self._student is not None and isinstance(job, Measure):
            reason = "measurements need the machine for themselves, so a class has none"
        if reason:
            await self._reply(encode(Failed(reason)))
            return
        if self._student is not None:
            self._shared.busy.add(self._student.number)
            if isinstance(job, Start):
                job.time_limit = min(job.time_limit, _MAX_CLASS_SECONDS)
        self._task = asyncio.create_task(self._carry_out(job))

    async def _carry_out(self, job: Job) -> None:
        try:
            lesson = self._shared.lessons.get(job.lesson) if isinstance(job, Start) else None
            record = RunRecord(job.programs) if lesson is not None and isinstance(job, Start) else None

            async def on_reply(line: bytes) -> None:
                if record is not None:
                    record.add(msgspec.json.decode(line))
                await self._reply(line)

            has_ended = await self._relay(job, on_reply)
            if not has_ended:
                await self._reply(encode(Failed("the run was broken off")))
            elif lesson is not None and record is not None and record.end is not None:
                results = await check_run(lesson, record, self._relay)
                passed = all(each.passed for each in results)
                if passed and self._student is not None and self._shared.classroom is not None:
                    self._shared.classroom.pass_lesson(self._student, lesson.id)
                await self._send(Checked(lesson.id, [msgspec.to_builtins(each) for each in results]))
        except Unavailable as error:
            await self._reply(encode(Failed(str(error))))
        except asyncio.CancelledError:
            await self._reply(encode(Failed("stopped before it began")))
            raise
        finally:
            self._set_state("idle")
            if self._student is not None:
                self._shared.busy.discard(self._student.number)

    async def _relay(self, job: Job, on_reply: OnReply) -> bool:
        """Wait for a turn, and carry out a job. Returns: whether it has come to its end.

        Raises:
            Unavailable: there is no sandbox.
        """
        if self._closing is not None:
            await self._closing
        turn = await self._turn()
        timer: asyncio.TimerHandle | None = None
        try:
            run = self._run = await self._shared.pool.take()
            self._set_state("runs")
            if turn is not None and isinstance(job, Start):
                timer = asyncio.get_running_loop().call_later(_HOLD, turn.release)
            return await run.carry_out(job, on_reply)
        finally:
            if timer is not None:
                timer.cancel()
            run_, self._run = self._run, None
            if run_ is not None:
                self._closing = asyncio.create_task(self._close(run_, turn))  # the page need not wait for it
            elif turn is not None:
                turn.release()

    async def _close(self, run: RunProcess, turn: QueuePlace | None) -> None:
        await run.close()
        if turn is not None:
            turn.release()

    async def _turn(self) -> QueuePlace | None:
        queue = self._shared.queue
        if queue is None:
            return None
        self._set_state("waits")
        key = self._student.number if self._student is not None else 0
        waiting: set[asyncio.Task[None]] = set()

        def on_wait(ahead: int) -> None:
            task = asyncio.create_task(self._send(Queued(ahead)))
            waiting.add(task)
            task.add_done_callback(waiting.discard)

        return await queue.enter(key, on_wait)

    def _set_state(self, state: str) -> None:
        if self._student is not None:
            self._student.state, self._student.seen = state, time.time()

    async def _send(self, reply: Reply) -> None:
        await self._reply(encode(reply))

    async def _reply(self, message: bytes) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the page is being closed
            await self._websocket.send_text(message.decode())

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._closing is not None:
            await self._closing
