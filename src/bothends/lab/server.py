"""The lab's server: one page, its files, and a WebSocket for each page that is open.

    GET /            the page; with ?token= the first time (`guard.py`)
    GET /static/...  its files
    GET /begin       what the page starts with: examples, starters, languages, limits, an opened file
    POST /export/... a file of the lab, as a page that replays its run, or as a picture
    POST /compare    two runs, aligned (`comparing.py`)
    GET /contracts   the built-in contracts; /contracts/NAME: the text of one
    GET /lessons     the lessons; /lessons/NAME: one of them
    GET /class       the teacher's page; /class/students: the students, /class/students/N: the work of one;
                     DELETE removes the student
    /socket          requests and replies of `messages.py`

A page has one run at a time. When it is closed, its run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed, Unavailable
from bothends.lab import recording
from bothends.lab.beginnings import beginnings
from bothends.lab.classroom import MAX_STUDENTS, SAVE_INTERVAL, Classroom, Student
from bothends.lab.comparing import respond_to_comparison
from bothends.lab.contract_list import contract_text, list_contracts
from bothends.lab.fair_queue import FairQueue
from bothends.lab.guard import Guard, OwnKeys
from bothends.lab.lessons import load_own_lessons
from bothends.lab.messages import MAX_REQUEST
from bothends.lab.request_body import read_body
from bothends.lab.request_rate import RequestRate, TooManyRequests
from bothends.lab.runs import RunPool
from bothends.lab.session import Session, Shared
from bothends.layers.certificates import TlsSettings
from bothends.sockets.host_addresses import is_local_host, local_addresses
from bothends.sockets.listener import Listener
from bothends.sockets.listening import open_listeners

_STATIC: Final = Path(__file__).with_name("static")
_MAX_PAGES: Final = 8  # pages that are open at a time; in a class, for each student two
_TRY_AGAIN_LATER: Final = 1013  # RFC 6455, section 7.4.1
_REMOVED: Final = "removed"  # why the task of a page is cancelled
_REMOVED_CODE: Final = 4001  # RFC 6455, section 7.4.2: for private use
_MAX_COSTLY: Final = 10  # exports and comparisons of a student in a window
_COSTLY_WINDOW: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class LabOptions:
    """How a lab is served.

    `host`: the address or name to listen on; "" is every address. `certificate` and `key`: PEM files for TLS.
    `lessons`: a folder with further lessons. `classroom`: the class that it is for. `places`: jobs at a time
    in a class. `opened`: what the page begins with; by default, an example.
    """

    host: str = "127.0.0.1"
    certificate: str = ""
    key: str = ""
    lessons: Path | None = None
    classroom: Classroom | None = None
    places: int = 0
    opened: recording.LabFile | None = None

    @property
    def scheme(self) -> str:
        """The scheme of its addresses."""
        return "https" if self.certificate else "http"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_local_host(self.host)


class Lab:
    """The ASGI application. `address` is what the user opens.

    Args:
        port: where it is served.
        on_ready: called with a description of the sandbox, when the first run can start.
        on_failure: called with the error if there is no sandbox.
    """

    def __init__(
        self,
        port: int,
        on_ready: Callable[[str], None] = lambda _: None,
        on_failure: Callable[[Unavailable], None] = lambda _: None,
        options: LabOptions = LabOptions(),
    ) -> None:
        self._options = options
        classroom = options.classroom
        self._pages: defaultdict[int, set[asyncio.Task[None]]] = defaultdict(set)  # that are open, by student
        self._rate = RequestRate(_MAX_COSTLY, _COSTLY_WINDOW)
        self._on_ready = on_ready
        self._on_failure = on_failure
        pool = RunPool(options.places, in_class=True) if classroom is not None else RunPool()
        queue = FairQueue(options.places) if classroom is not None else None
        self._shared = Shared(pool, load_own_lessons(options.lessons), queue, classroom)
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/begin", self._begin),
                Route("/export/{kind}", self._export, methods=["POST"]),
                Route("/compare", self._compare, methods=["POST"]),
                Route("/contracts", self._contracts),
                Route("/contracts/{name}", self._contract),
                Route("/lessons", self._lessons),
                Route("/lessons/{name}", self._lesson),
                Route("/class", self._class_page),
                Route("/class/students", self._students),
                Route("/class/students/{number:int}", self._student),
                Route("/class/students/{number:int}", self._remove_student, methods=["DELETE"]),
                WebSocketRoute("/socket", self._socket),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ],
            lifespan=self._lifespan,
        )
        own = OwnKeys()
        names = {options.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        self.guard = Guard(
            app,
            port,
            classroom if classroom is not None else own,
            frozenset() if options.is_local else names,
            secure=bool(options.certificate),
        )
        host = options.host or next(iter(local_addresses()), "127.0.0.1")
        self._base = f"{options.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self.address = f"{self._base}/?token={classroom.join_token if classroom is not None else own.token}"

    @property
    def teacher_address(self) -> str:
        """The address of the teacher's page, in a class."""
        classroom = self._options.classroom
        return f"{self._base}/class?token={classroom.teacher_token}" if classroom is not None else ""

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        pool = self._shared.pool
        saving = asyncio.create_task(self._keep_saving())
        try:
            self._on_ready((await pool.prepare()).sandbox)
        except Unavailable as error:
            self._on_failure(error)
        try:
            yield
        finally:
            saving.cancel()
            await pool.close()

    async def _keep_saving(self) -> None:
        """Write the state of a class now and then."""
        while self._options.classroom is not None:
            await asyncio.sleep(SAVE_INTERVAL)
            with contextlib.suppress(SystemCallFailed):  # the disk is full: perhaps not the next time
                await asyncio.to_thread(self._options.classroom.save)  # fsync may take long

    async def _page(self, _request: HttpRequest) -> Response:
        return FileResponse(_STATIC / "page.html")

    async def _begin(self, request: HttpRequest) -> Response:
        visitor = request.scope["visitor"]
        opened = self._options.opened
        found = {**beginnings(), "opened": recording.to_json(opened) if opened is not None else None}
        if self._options.classroom is not None:
            is_student = isinstance(visitor, Student)
            found["class"] = {
                "name": visitor.name if is_student else "teacher",
                "number": visitor.number if is_student else 0,
                "work": msgspec.to_builtins(visitor.work) if is_student else None,
                "passed": visitor.passed if is_student else [],
            }
        return JSONResponse(found)

    async def _compare(self, request: HttpRequest) -> Response:
        return await self._in_turn(request, respond_to_comparison)

    async def _export(self, request: HttpRequest) -> Response:
        return await self._in_turn(request, self._render)

    async def _in_turn(
        self, request: HttpRequest, respond: Callable[[HttpRequest], Awaitable[Response]]
    ) -> Response:
        """Respond to a costly request, unless it is one too many of a student."""
        visitor = request.scope["visitor"]
        if not isinstance(visitor, Student):
            return await respond(request)
        try:
            with self._rate.turn(visitor.number):
                return await respond(request)
        except TooManyRequests:
            return PlainTextResponse(
                "too many requests; try again in a few seconds\n", HTTPStatus.TOO_MANY_REQUESTS
            )

    async def _render(self, request: HttpRequest) -> Response:
        body = await read_body(request, recording.MAX_FILE)
        if body is None:
            return PlainTextResponse("the run is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            file = recording.parse(body)
        except msgspec.DecodeError as error:
            return PlainTextResponse(f"not a file of the lab: {error}", HTTPStatus.BAD_REQUEST)
        if file.run is None or request.path_params["kind"] not in ("page", "svg"):
            return PlainTextResponse("there is no run to show", HTTPStatus.BAD_REQUEST)
        if request.path_params["kind"] == "svg":
            text, kind = await asyncio.to_thread(recording.render_picture, file.run), "image/svg+xml"
        else:
            text, kind = await asyncio.to_thread(recording.render_page, file), "application/octet-stream"
        return Response(text, media_type=kind)

    async def _contracts(self, _request: HttpRequest) -> Response:
        return JSONResponse(await asyncio.to_thread(list_contracts))

    async def _contract(self, request: HttpRequest) -> Response:
        text = contract_text(request.path_params["name"])
        return Response(text, media_type="text/plain") if text is not None else _not_found()

    async def _lessons(self, _request: HttpRequest) -> Response:
        return JSONResponse([each.summary() for each in self._shared.lessons.values()])

    async def _lesson(self, request: HttpRequest) -> Response:
        lesson = self._shared.lessons.get(request.path_params["name"])
        return JSONResponse(lesson.page()) if lesson is not None else _not_found()

    async def _class_page(self, request: HttpRequest) -> Response:
        return FileResponse(_STATIC / "class.html") if self._is_teacher(request) else _not_found()

    async def _students(self, request: HttpRequest) -> Response:
        classroom = self._options.classroom
        if classroom is None or not self._is_teacher(request):
            return _not_found()
        students = [
            each.summary() | {"open": bool(self._pages.get(each.number))} for each in classroom.students
        ]
        lessons = [each.summary() for each in self._shared.lessons.values()]
        return JSONResponse({"students": students, "lessons": lessons, "address": self.address})

    async def _student(self, request: HttpRequest) -> Response:
        classroom = self._options.classroom
        if classroom is None or not self._is_teacher(request):
            return _not_found()
        number = request.path_params["number"]
        found = next((each for each in classroom.students if each.number == number), None)
        if found is None:
            return _not_found()
        return JSONResponse(found.summary() | {"work": msgspec.to_builtins(found.work)})

    async def _remove_student(self, request: HttpRequest) -> Response:
        classroom = self._options.classroom
        number = request.path_params["number"]
        if classroom is None or not self._is_teacher(request) or classroom.remove(number) is None:
            return _not_found()
        self._rate.forget(number)
        for page in self._pages.pop(number, ()):
            page.cancel(_REMOVED)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _is_teacher(self, request: HttpRequest) -> bool:
        return self._options.classroom is not None and not isinstance(request.scope["visitor"], Student)

    async def _socket(self, websocket: WebSocket) -> None:
        visitor = websocket.scope["visitor"]
        student = visitor if isinstance(visitor, Student) else None
        key = student.number if student is not None else 0
        await websocket.accept()
        pages, page = self._pages[key], asyncio.current_task()
        assert page is not None
        if len(pages) >= (_MAX_PAGES if student is None else 2):
            await websocket.close(_TRY_AGAIN_LATER, "too many pages are open")
            return
        pages.add(page)
        try:
            await Session(websocket, self._shared, student).serve()
        except asyncio.CancelledError as error:
            if error.args != (_REMOVED,):
                raise
            with contextlib.suppress(RuntimeError):  # the page has just been closed
                await websocket.close(_REMOVED_CODE, "removed by the teacher")
        finally:
            pages.discard(page)


def _not_found() -> Response:
    return PlainTextResponse("not found\n", HTTPStatus.NOT_FOUND)


class _Server(uvicorn.Server):
    """A uvicorn server whose signals the caller handles."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Do nothing."""
        yield


def listen(port: int = 0, host: str = "127.0.0.1") -> list[Listener]:
    """Return listening sockets on one port, which the caller closes.

    `host`: an address; a name, of which each address is taken; "" or "::": IPv6 and IPv4, on every interface.

    Raises:
        EndpointError, ResolveError: there is no such host.
        SystemCallFailed: binding or listening failed.
    """
    endpoint = Endpoint("tcp", host=host, port=port)
    return open_listeners(endpoint.with_options(v6only=False) if host == "::" else endpoint)


async def serve(
    listeners: Sequence[Listener],
    on_ready: Callable[[Lab, str], None],
    stop: Callable[[Callable[[], None]], None],
    options: LabOptions = LabOptions(),
) -> None:
    """Serve the lab until it is stopped.

    Args:
        listeners: what `listen` has returned.
        on_ready: called with the lab and a description of the sandbox.
        stop: called with a function that stops the server.

    Raises:
        Unavailable: there is no sandbox.
        OSError: `on_ready` raised it.
        BothendsError: the lessons, or the files for TLS, are not valid.
    """
    failure: list[Unavailable | OSError] = []

    def fail(error: Unavailable | OSError) -> None:
        failure.append(error)
        server.should_exit = True

    def ready(sandbox: str) -> None:
        try:
            on_ready(lab, sandbox)
        except OSError as error:  # stdout is full or closed; uvicorn would print a traceback
            fail(error)

    if options.certificate:  # uvicorn's errors do not name the file
        TlsSettings(options.certificate, options.key or None).context()
    port = listeners[0].endpoint.port or 0
    lab = Lab(port, ready, fail, options)
    config = uvicorn.Config(
        lab.guard,
        ws="websockets-sansio",
        ws_max_size=MAX_REQUEST,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=64 if options.classroom is None else 16 * MAX_STUDENTS,
        ssl_certfile=options.certificate or None,
        ssl_keyfile=options.key or None,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32 << 10,
    )
    server = _Server(config)

    def exit_soon() -> None:
        server.should_exit = True

    stop(exit_soon)
    await server.serve(sockets=[each.socket for each in listeners])
    if failure:
        raise failure[0]
