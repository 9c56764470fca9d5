"""The lab's server: one page, its files, and a WebSocket for each page that is open.

    GET /            the page; with ?token= the first time (`guard.py`)
    GET /static/...  its files
    GET /begin       what the page starts with: examples, starters, languages, limits, an opened file
    POST /export/... a file of the lab, as a page that replays its run, or as a picture
    POST /compare    two runs, aligned (`comparing.py`)
    /socket          requests and replies of `messages.py`

A page has one run at a time. When it is closed, its run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
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
from starlette.websockets import WebSocket, WebSocketDisconnect

from bothends.errors import SystemCallFailed, Unavailable
from bothends.lab import recording
from bothends.lab.beginnings import beginnings
from bothends.lab.comparing import respond_to_comparison
from bothends.lab.guard import Guard
from bothends.lab.messages import MAX_REQUEST, Failed, Start, decode_request, encode
from bothends.lab.runs import RunPool, RunProcess

HOST: Final = "127.0.0.1"
_STATIC: Final = Path(__file__).with_name("static")
_MAX_PAGES: Final = 8  # pages that are open at a time
_MAX_REQUESTS: Final = 100  # in _RATE_WINDOW
_RATE_WINDOW: Final = 10.0  # seconds
_LAST_REPLIES: Final = (b'{"type":"ended"', b'{"type":"failed"')
_POLICY_VIOLATION: Final = 1008  # RFC 6455, section 7.4.1
_TRY_AGAIN_LATER: Final = 1013


class Lab:
    """The ASGI application. `address` is what the user opens.

    Args:
        port: where it is served.
        on_ready: called with a description of the sandbox, when the first run can start.
        on_failure: called with the error if there is no sandbox.
        opened: what the page begins with.
    """

    def __init__(
        self,
        port: int,
        on_ready: Callable[[str], None] = lambda _: None,
        on_failure: Callable[[Unavailable], None] = lambda _: None,
        opened: recording.LabFile | None = None,
    ) -> None:
        self._opened = opened
        self._pool = RunPool()
        self._pages = 0
        self._on_ready = on_ready
        self._on_failure = on_failure
        app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/begin", self._begin),
                Route("/export/{kind}", self._export, methods=["POST"]),
                Route("/compare", respond_to_comparison, methods=["POST"]),
                WebSocketRoute("/socket", self._socket),
                Mount("/static", StaticFiles(directory=_STATIC)),
            ],
            lifespan=self._lifespan,
        )
        self.guard = Guard(app, port)
        self.address = f"http://{HOST}:{port}/?token={self.guard.token}"

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        try:
            self._on_ready((await self._pool.prepare()).sandbox)
        except Unavailable as error:
            self._on_failure(error)
        try:
            yield
        finally:
            await self._pool.close()

    async def _page(self, _request: HttpRequest) -> Response:
        return FileResponse(_STATIC / "page.html")

    async def _begin(self, _request: HttpRequest) -> Response:
        opened = recording.to_json(self._opened) if self._opened is not None else None
        return JSONResponse({**beginnings(), "opened": opened})

    async def _export(self, request: HttpRequest) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > recording.MAX_FILE:
                return PlainTextResponse("the run is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            file = recording.parse(bytes(body))
        except msgspec.DecodeError as error:
            return PlainTextResponse(f"not a file of the lab: {error}", HTTPStatus.BAD_REQUEST)
        if file.run is None or request.path_params["kind"] not in ("page", "svg"):
            return PlainTextResponse("there is no run to show", HTTPStatus.BAD_REQUEST)
        if request.path_params["kind"] == "svg":
            text, kind = await asyncio.to_thread(recording.render_picture, file.run), "image/svg+xml"
        else:
            text, kind = await asyncio.to_thread(recording.render_page, file), "application/octet-stream"
        return Response(text, media_type=kind)

    async def _socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if self._pages >= _MAX_PAGES:
            await websocket.close(_TRY_AGAIN_LATER, "too many pages are open")
            return
        self._pages += 1
        try:
            await _Session(websocket, self._pool).serve()
        finally:
            self._pages -= 1


class _Session:
    """One page and its runs, one at a time."""

    def __init__(self, websocket: WebSocket, pool: RunPool) -> None:
        self._websocket = websocket
        self._pool = pool
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
        if isinstance(request, Start):
            if self._task is not None and not self._task.done():
                await self._reply(encode(Failed("a run is going on; stop it first")))
                return
            self._task = asyncio.create_task(self._relay(request))
        elif self._run is not None:
            self._run.send(request)

    async def _relay(self, request: Start) -> None:
        """Run programs, and pass the replies on to the page."""
        if self._closing is not None:
            await self._closing
        try:
            run = self._run = await self._pool.take()
        except Unavailable as error:
            await self._reply(encode(Failed(str(error))))
            return
        has_ended = False
        try:
            run.send(request)
            async with asyncio.timeout(run.max_seconds):
                while not has_ended and (line := await run.read()):
                    has_ended = line.startswith(_LAST_REPLIES)
                    await self._reply(line)
        except TimeoutError:
            pass
        finally:
            self._run = None
            self._closing = asyncio.create_task(run.close())  # the page need not wait for it
        if not has_ended:
            await self._reply(encode(Failed("the run was broken off")))

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


class _Server(uvicorn.Server):
    """A uvicorn server whose signals the caller handles."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Do nothing."""
        yield


def listen(port: int = 0) -> socket.socket:
    """Return a listening socket on the loopback address. Raises SystemCallFailed."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise SystemCallFailed("listen on", f"{HOST}:{port}", error.errno or 0) from error
    return listener


async def serve(
    listener: socket.socket,
    on_ready: Callable[[str, str], None],
    stop: Callable[[Callable[[], None]], None],
    opened: recording.LabFile | None = None,
) -> None:
    """Serve the lab until it is stopped.

    Args:
        on_ready: called with the address and a description of the sandbox.
        stop: called with a function that stops the server.
        opened: what the page begins with; by default, an example.

    Raises:
        Unavailable: there is no sandbox.
    """
    failure: list[Unavailable] = []

    def fail(error: Unavailable) -> None:
        failure.append(error)
        server.should_exit = True

    lab = Lab(listener.getsockname()[1], lambda sandbox: on_ready(lab.address, sandbox), fail, opened)
    config = uvicorn.Config(
        lab.guard,
        ws="websockets-sansio",
        ws_max_size=MAX_REQUEST,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=32 << 10,
    )
    server = _Server(config)

    def exit_soon() -> None:
        server.should_exit = True

    stop(exit_soon)
    await server.serve(sockets=[listener])
    if failure:
        raise failure[0]
