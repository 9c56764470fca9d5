"""The lifecycle of a server: bind, run, drain, stop.

    Server(service, endpoints) ──> bound ── run() or `with` ──> running ── drain() ──> draining ──> stopped
                                     └───────────────────── close() ─────────────────────────────────┘

1. A server consists of listeners, a service, an engine and limits. The engine decides how to wait for I/O,
   the service what to send.
2. It checks that the engine supports the service and the endpoints before it binds anything, so that an
   unsupported combination fails at once. It binds all endpoints or none.
3. Shutdown flags stop it (`engines/shutdown.py`). A signal handler, a thread and a parent process can set
   them.

Rank 3: combines sockets, services and engines.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from bothends.endpoints import Endpoint
from bothends.engines.base import Engine, EngineContext, Limits
from bothends.engines.processes import WorkerPool
from bothends.engines.selection import check_inherited_connection, choose_engine, incompatibility
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import BothendsError, SystemCallFailed, UsageError
from bothends.events import Event, Listening, Observer, Reloaded, ReloadFailed, Stopped
from bothends.layers import TlsLayer, TlsSettings, opener_for
from bothends.osutil.signals import handle_signals, is_main_thread
from bothends.services import registry as services
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.services.functions import stream
from bothends.sockets import Listener, open_listeners
from bothends.sockets.systemd import notify, watchdog
from bothends.sockets.takeover import request_listeners, serve_handover

__all__ = ["Server", "serve"]


def serve(
    service: Service | type[Conversation] | str,
    *endpoints: Endpoint | str,
    engine: str | type[Engine] | None = None,
    workers: int = 1,
    limits: Limits | None = None,
    observe: Observer | None = None,
    tls: TlsSettings | None = None,
) -> Server:
    """Bind a server, and return it ready to run.

    `serve(shout, "tcp://:12000").run()` serves until SIGINT or SIGTERM.
    `with serve(shout, "tcp://127.0.0.1:0") as server:` serves in a background thread inside the context.

    Args:
        service: a service, a class of conversations (instantiated for each connection), or a name as on the
            command line ("upper", "shout.py:shout").
        endpoints: where to listen, one or more.
        engine: a name listed by `bothends engines`, or an Engine class. None selects the best available one
            that supports the service and all endpoints.
        workers: number of processes that run the engine on the same sockets.
        limits: default Limits().
        observe: called with every event, in the process and thread where it occurs.
        tls: certificate and other TLS settings, for tls:// endpoints.

    Raises:
        UnknownName, EndpointError, ServiceError: an argument names nothing, or is invalid.
        UnsupportedCombination: the engine does not support the service on one of the endpoints.
        Unavailable: the engine or a socket family is not available.
        SystemCallFailed: an endpoint cannot be bound.
    """
    return Server(service, endpoints, engine=engine, workers=workers, limits=limits, observe=observe, tls=tls)


class Server:
    """A bound server: listeners, a service, an engine and limits.

    Args:
        service, endpoints, engine, workers, limits, observe, tls: see `serve`.
        engine_options: keyword arguments for the engine's constructor.
        takeover: path of a UNIX socket. A server that offers its listeners there hands them over to this one,
            which then offers them to the next.
        service_spec: the name from which `service` was loaded, for `reload`.

    Raises:
        BothendsError: see `serve`.
    """

    def __init__(
        self,
        service: Service | type[Conversation] | str,
        endpoints: Sequence[Endpoint | str],
        *,
        engine: str | type[Engine] | None = None,
        workers: int = 1,
        limits: Limits | None = None,
        observe: Observer | None = None,
        engine_options: Mapping[str, Any] | None = None,
        takeover: str | None = None,
        tls: TlsSettings | None = None,
        service_spec: str | None = None,
    ) -> None:
        self._service_spec = service if isinstance(service, str) else service_spec
        self.service = _as_service(service)
        self.limits = limits or Limits()
        self.workers = workers
        requested = [Endpoint.parse(each) if isinstance(each, str) else each for each in endpoints]
        if not requested:
            raise UsageError("no endpoint to listen on; try tcp://:12000")
        self.engine = choose_engine(engine, self.service, requested, self.limits, workers)
        self.tls = tls
        self._tls, self.tls_fingerprint = prepare_tls(requested, tls)
        """SHA-256 fingerprint of the certificate in hexadecimal; "" without TLS."""
        self._engine_options = dict(engine_options or {})
        self._observe = observe
        self._stop = ShutdownFlags()
        self._thread: threading.Thread | None = None
        self._crash: BaseException | None = None
        self._running_engine: Engine | None = None
        self._workers: WorkerPool | None = None
        self._takeover = takeover
        self._main_pid = os.getpid()  # the parent of the worker processes
        self._has_parent = False
        self._listeners_offered = False
        self._inheritance = request_listeners(takeover) if takeover is not None else None
        self._listeners: list[Listener] = []
        try:
            for endpoint in requested:
                inherited = self._inheritance.claim(endpoint) if self._inheritance is not None else []
                self._listeners += inherited or open_listeners(endpoint)
            # Check again: the type of an inherited descriptor is known only once it is open.
            real = [each.endpoint for each in self._listeners]
            self.engine = choose_engine(engine, self.service, real, self.limits, workers)
            if connections := [each for each in self._listeners if each.role == "connection"]:
                check_inherited_connection(self.engine, connections[0], workers)
        except BaseException:
            self.close()
            raise
        self.endpoints: list[Endpoint] = [each.endpoint for each in self._listeners]
        """The listening endpoints, with their real ports."""
        for endpoint in self.endpoints:
            self._emit(Listening(endpoint))

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until stopped, then close everything.

        In the main thread, the first SIGINT or SIGTERM drains, the second aborts, SIGHUP reloads the service.

        There and unless the server runs in a child (`adopt_in_child`), the service manager is notified too
        (sd_notify(3)).

        Args:
            on_ready: called once signal handlers are installed, just before connections are accepted.

        Raises:
            BothendsError: the server cannot start or continue.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            stack.enter_context(handle_signals(self, only_sighup=self._has_parent))
            if not self._has_parent and not self._listeners_offered:
                stack.enter_context(self.offer_listeners())
            if on_ready is not None:
                on_ready()
            if not self._has_parent and is_main_thread():
                stack.enter_context(sd_notify_ready())
            if self.workers > 1:
                self._run_workers()
            else:
                self._run_engine(self._stop)

    def adopt_in_child(self) -> None:
        """Prepare to `run` this server in a forked child of the process that has bound it.

        `drain` and `abort` in the parent stop the child, and so does the parent's exit.
        """
        parent_stop, self._stop = self._stop, ShutdownFlags()
        parent_stop.detach_in_child()
        self._has_parent = True
        self._main_pid = os.getpid()
        threading.Thread(
            target=self._follow_parent, args=(parent_stop,), name="bothends-follow-parent", daemon=True
        ).start()

    def discard_in_child(self) -> None:
        """Release this server's resources in a forked child that does not run it."""
        self._stop.detach_in_child()  # a copy of the write ends here would keep the flags unset
        self.close_listeners()

    def _follow_parent(self, parent_stop: ShutdownFlags) -> None:
        parent_stop.draining.wait()
        self.drain()
        parent_stop.aborting.wait()
        self.abort()

    @contextlib.contextmanager
    def offer_listeners(self) -> Iterator[None]:
        """Complete a takeover, and offer the listeners to the next server inside the context.

        The old server drains once this one confirms. `run` does this itself, unless it was called before or
        the server runs in a child (`adopt_in_child`).
        """
        self._listeners_offered = True
        if self._inheritance is not None:
            with contextlib.suppress(SystemCallFailed):  # the old server has exited already
                self._inheritance.confirm()
        if self._takeover is None:
            yield
            return
        with serve_handover(self._takeover, self._listeners, self.drain):
            yield

    @property
    def is_draining(self) -> bool:
        """Whether the server has been asked to stop."""
        return self._stop.draining.is_set()

    def reload(self) -> None:
        """Reload the service from its file or module, and the certificate from its file. Thread-safe.

        New connections get the new service; open connections keep the old one. If the service cannot be
        loaded or the engine does not support it, or the certificate is invalid, the old ones stay, and a
        `ReloadFailed` event is emitted instead of `Reloaded`.
        """
        try:
            if self._service_spec is None:
                raise UsageError("the service was given as an object, not as a name")
            new_service = services.load(self._service_spec)
            error = incompatibility(self.engine, new_service, self.endpoints, self.limits, self.workers)
            if error is not None:
                raise error
            if self._tls is not None and self.tls is not None and not self.tls.self_signed:
                context, self.tls_fingerprint = self.tls.context()
                self._tls.set_context(context)
        except BothendsError as failure:
            self._emit(ReloadFailed(self.service.name, str(failure)))
            return
        self.service = new_service
        if self._running_engine is not None:
            self._running_engine.reload(new_service)
        if self._workers is not None:
            self._workers.reload_all()
        if os.getpid() == self._main_pid:
            self._emit(Reloaded(new_service.name))  # once, not by each worker

    def drain(self) -> None:
        """Stop accepting, let open connections finish, abort those still open after `limits.drain` seconds.

        Returns at once. Safe in a signal handler and from any thread.
        """
        self._stop.draining.set()

    def abort(self) -> None:
        """Abort all connections. Returns at once. Safe in a signal handler and from any thread."""
        self._stop.draining.set()
        self._stop.aborting.set()

    def close(self) -> None:
        """Close everything that is bound. Idempotent; `run` calls it at its end."""
        if not self._stop.closed:
            self._stop.close()
            self.close_listeners()
            for listener in self._listeners:
                listener.wait_flushed(self.limits.drain)  # output still in the buffer of a stdio: endpoint
            if self._inheritance is not None:
                self._inheritance.close()
            self._emit(Stopped())

    def close_listeners(self) -> None:
        """Close the listeners in this process; other processes that share them continue to accept."""
        for listener in self._listeners:
            listener.close()

    def __enter__(self) -> Server:
        """Start `run` in a background thread."""
        self._thread = threading.Thread(target=self._run_in_thread, name="bothends-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, and wait for the thread. Raises the error that ended the server, if any."""
        assert self._thread is not None
        self.drain()
        self._thread.join()
        if self._crash is not None and error is None:
            raise self._crash

    def _run_in_thread(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._crash = error

    def _run_engine(self, stop: ShutdownFlags) -> None:
        shared = self.workers > 1
        context = EngineContext(
            self.service, self._listeners, stop, self.limits, self._observe, shared=shared
        )

        def open_current(peer: Peer, push: Push) -> Conversation:
            return context.service.open(peer, push)  # `reload` replaces context.service

        context.opener = opener_for(open_current, self._listeners, self._tls)
        self._running_engine = self.engine(context, **self._engine_options)
        self._running_engine.reload(self.service)  # another thread may have replaced it meanwhile
        self._running_engine.run()

    def _emit(self, event: Event) -> None:
        if self._observe is not None:
            self._observe(event)

    def _run_workers(self) -> None:
        # The workers wait for the same sockets, and an idle one accepts each connection. With one listener
        # per worker (SO_REUSEPORT), a worker that exits would lose the connections that the kernel has
        # already put into its accept queue.
        def work(stop: ShutdownFlags) -> None:
            self._workers = None  # only the parent has workers
            self._run_engine(stop)

        self._workers = WorkerPool(
            self.workers,
            work,
            self._stop,
            self._observe,
            grace=self.limits.drain,
            on_drain=self.close_listeners,
        )
        self._workers.run()


@contextlib.contextmanager
def sd_notify_ready() -> Iterator[None]:
    """Notify the service manager: READY=1, watchdog keep-alives inside the context, then STOPPING=1."""
    with watchdog():
        notify("READY=1", f"MAINPID={os.getpid()}")
        try:
            yield
        finally:
            notify("STOPPING=1")


def _as_service(service: Service | type[Conversation] | str) -> Service:
    if isinstance(service, str):
        return services.load(service)
    return stream(service) if isinstance(service, type) else service


def prepare_tls(endpoints: Sequence[Endpoint], settings: TlsSettings | None) -> tuple[TlsLayer | None, str]:
    """Return the TLS layer for these endpoints (None without tls://), and the certificate's fingerprint.

    Raises:
        UsageError: settings without a tls:// endpoint, or the reverse, or invalid settings.
        SystemCallFailed: a file cannot be read.
        Unavailable: the library for self-signed certificates is not installed.
    """
    wanted = [endpoint for endpoint in endpoints if endpoint.scheme == "tls"]
    if not wanted and settings is not None:
        raise UsageError("TLS settings without a tls:// endpoint")
    if not wanted:
        return None, ""
    if settings is None:
        options = "give one (--tls-cert FILE), or generate one (--tls-self-signed)"
        raise UsageError(f"{wanted[0]} needs a certificate: {options}")
    context, fingerprint = settings.context([endpoint.host for endpoint in wanted])
    return TlsLayer(context), fingerprint
