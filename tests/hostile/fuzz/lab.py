"""The fuzz targets of the lab: its protocol, its guard, lessons and the file of a class."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html.parser
import http.cookies
import json
from typing import Any, Final

import msgspec
from starlette.websockets import WebSocketDisconnect

from bothends.errors import Unavailable
from bothends.lab import messages
from bothends.lab.classroom import Classroom, Student, parse_state
from bothends.lab.fair_queue import FairQueue
from bothends.lab.guard import Guard, OwnKeys
from bothends.lab.lesson_checks import RunRecord, evaluate
from bothends.lab.lessons import Lesson, load_lessons, parse_lesson, render
from bothends.lab.session import Session, Shared

_TAGS: Final = {
    "p", "em", "strong", "code", "pre", "a", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "br", "hr",
    "blockquote", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
_ATTRIBUTES: Final = {"href", "title", "target", "rel", "start", "class", "style"}
_REPLIES: Final = (
    {"type": "started", "roles": ["server"]},
    {"type": "output", "program": 0, "text": "HELLO", "at": 1},
    {"type": "ended", "reason": "", "findings": [], "waits": [], "notes": [], "seconds": 0.1},
)


# Messages ---------------------------------------------------------------------------------------------


def requests(data: bytes) -> None:
    """Anything is a bounded request, or refused; and a request is the same after it was encoded."""
    try:
        request = messages.decode_request(data)
    except msgspec.DecodeError:
        return
    line = messages.encode(request)
    assert b"\n" not in line
    assert messages.encode(messages.decode_request(line)) == line
    for each in getattr(request, "programs", ()):
        assert len(each.text) <= messages.MAX_SOURCE
        assert "/" not in each.file
        assert ".." not in each.file


class _Page:
    """A WebSocket whose messages are the lines of an input."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = iter(lines)
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    async def receive_text(self) -> str:
        await asyncio.sleep(0)
        for line in self._lines:
            if line != "wait":
                return line
            for _ in range(20):
                await asyncio.sleep(0)
        raise WebSocketDisconnect(1000)

    async def send_text(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def close(self, _code: int, _reason: str) -> None:
        self.closed = True


class _Run:
    """The process of a run, which ends after a few replies, or when it is closed."""

    def __init__(self) -> None:
        self._is_stopped = asyncio.Event()

    async def carry_out(self, job: messages.Job, on_reply: Any) -> bool:
        line = messages.encode(job)
        assert messages.encode(messages.decode_request(line)) == line
        for each in _REPLIES:
            await asyncio.sleep(0)
            if self._is_stopped.is_set():
                return False
            await on_reply(json.dumps(each).encode())
        return True

    def send(self, _request: messages.Request) -> None:
        self._is_stopped.set()

    async def close(self) -> None:
        self._is_stopped.set()


class _Pool:
    def __init__(self) -> None:
        self.taken = 0

    async def take(self) -> _Run:
        self.taken += 1
        if self.taken % 7 == 0:
            raise Unavailable("run", "programs in the sandbox", reason="a test")
        return _Run()


def sessions(data: bytes) -> None:
    """Whatever a page sends, its session ends, answers each job once, and gives all places back."""
    asyncio.run(asyncio.wait_for(_serve(data.decode("utf-8", "replace").split("\n")), 5))


async def _serve(lines: list[str]) -> None:
    room = Classroom(None, -1, _state())  # type: ignore[arg-type]
    secret = room.admit(room.join_token, None)
    student = room.visitor(secret or "")
    assert isinstance(student, Student)
    queue = FairQueue(1)
    shared = Shared(_Pool(), _lessons(), queue, room)  # type: ignore[arg-type]
    page = _Page(lines)
    await Session(page, shared, student).serve()  # type: ignore[arg-type]
    for _ in range(5):
        await asyncio.sleep(0)
    assert queue.position(1) is None
    assert not shared.busy
    (await asyncio.wait_for(queue.enter("another"), 1)).release()
    assert student.state == "idle"
    assert len(student.name) <= 4 * messages.MAX_NAME
    assert student.name.isprintable()
    assert parse_state(msgspec.json.encode(room._state), "class.json").students == room.students


def _state() -> Any:
    return parse_state(
        b'{"version":1,"join":"abcde-fghij","teacher":"0123456789abcdef","teachers":[],"students":[]}',
        "class.json",
    )


@functools.cache
def _lessons() -> dict[str, Lesson]:
    return load_lessons()


# Access -----------------------------------------------------------------------------------------------


def guards(data: bytes) -> None:
    """The lines are path, query and header fields. Only the cookie or the token opens anything."""
    asyncio.run(_ask(data.split(b"\n")))


async def _ask(lines: list[bytes]) -> None:
    keys, passed, answers = OwnKeys(), [], []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        passed.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        answers.append(message)

    parts = (each.partition(b":") for each in lines[3:])
    fields = [(name.strip().lower(), value.strip()) for name, found, value in parts if found]
    scope = {
        "type": "websocket" if lines[0] == b"websocket" else "http",
        "method": "GET",
        "path": lines[1].decode("utf-8", "replace") if len(lines) > 1 else "/",
        "query_string": lines[2].replace(b"TOKEN", keys.token.encode()) if len(lines) > 2 else b"",
        "headers": [(name, value.replace(b"SECRET", keys._secret.encode())) for name, value in fields],
    }
    await Guard(app, 8000, keys)(scope, None, send)  # type: ignore[arg-type]
    assert answers
    if not passed:
        assert answers[0].get("status", 403) in (400, 403, 421)
        return
    (seen,) = passed
    values = dict(seen["headers"])
    cookies = http.cookies.SimpleCookie()
    with contextlib.suppress(http.cookies.CookieError):
        cookies.load(values.get(b"cookie", b"").decode("latin-1"))
    own = cookies.get("bothends-lab-8000")
    has_cookie = own is not None and own.value == keys._secret
    has_token = seen["type"] == "http" and keys.token.encode() in seen["query_string"]
    assert has_cookie or has_token
    assert has_cookie or seen["path"] in ("/", "/class")
    assert seen["type"] == "http" or b"origin" in values
    for name, value in answers[0]["headers"]:
        assert b"\n" not in name + value
        assert b"\r" not in name + value


# Lessons and the class --------------------------------------------------------------------------------


class _Reader(html.parser.HTMLParser):
    """Checks the elements of a lesson's text."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        for name, value in attrs:
            assert name in _ATTRIBUTES, name
            if name == "href":
                assert (value or "").lower().startswith(("http://", "https://")), value
            if name == "style":
                assert (value or "") in ("text-align:left", "text-align:right", "text-align:center"), value


def lessons(data: bytes) -> None:
    """A lesson is whole, or refused; its text is HTML of a few elements, and its checks can be evaluated."""
    text = data.decode("utf-8", "replace")
    about, body = parse_lesson(text, "lesson.md")
    reader = _Reader()
    reader.feed(render(body))
    reader.close()
    if any(each.output is not None and len(each.output.matches) > 20 for each in about.check):
        return  # a regular expression may take long: the teacher is believed
    record = RunRecord([])
    for each in _REPLIES:
        record.add(dict(each))
    results = evaluate(Lesson("a", about, body, [], []), record)
    assert all(bool(each.happened) is not each.passed for each in results)


def classes(data: bytes) -> None:
    """The file of a class is whole, or refused; and the same after it was written again."""
    state = parse_state(data, "class.json")
    again = parse_state(msgspec.json.encode(state), "class.json")
    assert msgspec.json.encode(again) == msgspec.json.encode(state)
    assert all(each.name.isprintable() for each in state.students)
