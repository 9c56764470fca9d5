"""A server's life: bind, run, drain, stop.

    Server(service, endpoints) ──> bound ── run() or `with` ──> running ── drain() ──> draining ──> stopped
                                     └───────────────────── close() ─────────────────────────────────┘

A server is listeners, a service, an engine and limits. It asks the engine whether it can carry what
it is to carry before anything is bound, so whoever asks for the impossible is told at once; it binds
everything or nothing; and it is told to stop by latches (`engines/shutdown.py`), which a signal handler, a
thread and a parent process can all set.

Rank 3: puts sockets, services and engines together. How it waits is the engine's affair, what is
said the service's.
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


def serve(
    service: Service | type[Conversation] | str,
    *endpoints: Endpoint | str,
    engine: str | type[Engine] | None = None,
    workers: int = 1,
    limits: Limits | None = None,
    observe: Observer | None = None,
    tls: TlsSettings | None = None,
) -> Server:
    """A server, bound and ready to run.

    Its two uses: `serve(shout, "tcp://:12000").run()` serves until SIGINT or SIGTERM, and
    `with serve(shout, "tcp://127.0.0.1:0") as server:` serves in the background meanwhile.

    Args:
        service: a service, a class of conversations (one is made for each connection), or a name as on
            the command line ("upper", "shout.py:shout").
        endpoints: where to listen, one or more.
        engine: how to wait: a name of `bothends engines`, or an Engine class. None takes the best
            one that works here and can carry everything.
        workers: how many processes run the engine, on the same sockets.
        limits: what to grant; the default is Limits().
        observe: called with every event, in the process and thread where it happens.
        tls: the certificate, and what else TLS needs, for tls:// endpoints.

    Raises:
        UnknownName, EndpointError, ServiceError: something that isn't there or can't be read.
        CannotCarry: the engine can't carry the service on one of the endpoints.
        Unavailable: the engine or a socket family isn't here.
        SystemRefused: the system refused to bind.
    """
    return Server(service, endpoints, engine=engine, workers=workers, limits=limits, observe=observe, tls=tls)


class Server:
    """Listeners, a service, an engine and limits, with a life. See `serve` for the arguments.

    `options` are keyword arguments for the engine's constructor. `takeover` is the path of a UNIX socket:
    the listeners of a server that offers them there are taken over, and then offered there to the next.
    `origin` is the name under which `service` was loaded, to load it again from.
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
        asked = [Endpoint.parse(each) if isinstance(each, str) else each for each in endpoints]
        if not asked:
            raise UsageError("no endpoint to listen on; try tcp://:12000")
        self.engine = choose_engine(engine, self.service, asked, self.limits, workers)
        self.tls = tls
        self._tls, self.tls_fingerprint = prepare_tls(asked, tls)
        """SHA-256 of the certificate that is shown, in hexadecimal; "" without TLS."""
        self._engine_options = dict(engine_options or {})
        self._observe = observe
        self._stop = ShutdownFlags()
        self._thread: threading.Thread | None = None
        self._crash: BaseException | None = None
        self._running_engine: Engine | None = None
        self._workers: WorkerPool | None = None
        self._takeover = takeover
        self._main_pid = os.getpid()  # of the processes that serve, the one that the others are children of
        self._has_parent = False
        self._listeners_offered = False
        self._inheritance = request_listeners(takeover) if takeover is not None else None
        self._listeners: list[Listener] = []
        try:
            for endpoint in asked:
                inherited = self._inheritance.claim(endpoint) if self._inheritance is not None else []
                self._listeners += inherited or open_listeners(endpoint)
            # Of a descriptor that somebody else opened, only now is known what it is.
            real = [each.endpoint for each in self._listeners]
            self.engine = choose_engine(engine, self.service, real, self.limits, workers)
            if ready_made := [each for each in self._listeners if each.role == "connection"]:
                check_inherited_connection(self.engine, ready_made[0], workers)
        except BaseException:
            self.close()
            raise
        self.endpoints: list[Endpoint] = [each.endpoint for each in self._listeners]
        """Where it listens, with the real ports."""
        for endpoint in self.endpoints:
            self._emit(Listening(endpoint))

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop. In the main thread, SIGINT and SIGTERM tell it: the first to
        drain, the second to stop at once; and SIGHUP to reload the service.

        `ready` is called when signals are minded and connections about to be served. A service manager
        that wants to know it is told too (sd_notify(3)), unless this is but a part of a program: a thread of
        it, or a process of several.
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
        """In a child after fork: this process will `run` the server that its parent has bound.

        The parent's copy can stop it (`drain`, `abort`), and so does the parent's death.
        """
        superior, self._stop = self._stop, ShutdownFlags()
        superior.detach_in_child()
        self._has_parent = True
        self._main_pid = os.getpid()
        threading.Thread(
            target=self._follow_parent, args=(superior,), name="bothends-obey", daemon=True
        ).start()

    def discard_in_child(self) -> None:
        """In a child after fork, which has nothing to do with this server: keep nothing of it."""
        self._stop.detach_in_child()  # or it could not be told to stop while we live
        self.close_listeners()

    def _follow_parent(self, parent_stop: ShutdownFlags) -> None:
        parent_stop.draining.wait()
        self.drain()
        parent_stop.aborting.wait()
        self.abort()

    @contextlib.contextmanager
    def offer_listeners(self) -> Iterator[None]:
        """While inside, the process before us leaves, and whoever comes after us is offered the listeners.
        Part of `run`, unless it was begun before; not for a server that runs in a child (`adopt_in_child`)."""
        self._listeners_offered = True
        if self._inheritance is not None:
            with contextlib.suppress(SystemCallFailed):  # the old one has gone already: all is ours
                self._inheritance.confirm()
        if self._takeover is None:
            yield
            return
        with serve_handover(self._takeover, self._listeners, self.drain):
            yield

    @property
    def is_draining(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop.draining.is_set()

    def reload(self) -> None:
        """Load the service anew from where it came from: its file is run again. So is a certificate that
        stands in a file. Conversations that begin from now on are the new one's; those that go on keep the
        old one. From any thread.

        A service that can't be loaded, or not be carried, or a certificate that is no more one, leaves
        the old ones, and an event says why.
        """
        try:
            if self._service_spec is None:
                raise UsageError("it was given as an object, not as a name")
            fresh = services.load(self._service_spec)
            refusal = incompatibility(self.engine, fresh, self.endpoints, self.limits, self.workers)
            if refusal is not None:
                raise refusal
            if self._tls is not None and self.tls is not None and not self.tls.self_signed:
                context, self.tls_fingerprint = self.tls.context()
                self._tls.set_context(context)
        except BothendsError as error:
            self._emit(ReloadFailed(self.service.name, str(error)))
            return
        self.service = fresh
        if self._running_engine is not None:
            self._running_engine.reload(fresh)
        if self._workers is not None:
            self._workers.reload_all()
        if os.getpid() == self._main_pid:
            self._emit(Reloaded(fresh.name))  # once, and not by each worker

    def drain(self) -> None:
        """Welcome nobody more, let conversations end, cut off what is left after `limits.drain`.

        Returns at once; safe in a signal handler and from any thread.
        """
        self._stop.draining.set()

    def abort(self) -> None:
        """Cut everything off now. Returns at once; safe as `drain` is."""
        self._stop.draining.set()
        self._stop.aborting.set()

    def close(self) -> None:
        """Give back everything that is bound. Idempotent; `run` ends with it."""
        if not self._stop.closed:
            self._stop.close()
            self.close_listeners()
            for listener in self._listeners:
                listener.wait_flushed(self.limits.drain)  # the last words on their way to standard output
            if self._inheritance is not None:
                self._inheritance.close()
            self._emit(Stopped())

    def close_listeners(self) -> None:
        """Close the listeners in this process; whoever has them too goes on. For a parent whose child
        serves."""
        for listener in self._listeners:
            listener.close()

    def __enter__(self) -> Server:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self._run_in_thread, name="bothends-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, and wait for the end. An error that ended the server is raised here."""
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

        def open_current(peer: Peer, post: Push) -> Conversation:
            return context.service.open(peer, post)  # another one after a reload

        context.opener = opener_for(open_current, self._listeners, self._tls)
        self._running_engine = self.engine(context, **self._engine_options)
        self._running_engine.reload(self.service)  # which another thread may just have loaded anew
        self._running_engine.run()

    def _emit(self, event: Event) -> None:
        if self._observe is not None:
            self._observe(event)

    def _run_workers(self) -> None:
        # The workers wait for the same sockets, and each connection goes to whichever is free. With
        # a socket of its own for each (SO_REUSEPORT), a worker that stops or dies would take with
        # it the connections that the kernel has already put into its queue.
        def work(stop: ShutdownFlags) -> None:
            self._workers = None  # the parent's
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
    """While inside, the service manager knows that this process is ready, and that it is alive."""
    with watchdog():
        notify("READY=1", f"MAINPID={os.getpid()}")
        try:
            yield
        finally:
            notify("STOPPING=1")


def _as_service(given: Service | type[Conversation] | str) -> Service:
    if isinstance(given, str):
        return services.load(given)
    return stream(given) if isinstance(given, type) else given


def prepare_tls(endpoints: Sequence[Endpoint], settings: TlsSettings | None) -> tuple[TlsLayer | None, str]:
    """What speaks TLS on these endpoints, if any of them does, and its certificate's fingerprint.

    Raises CallerError, SystemRefused, Unavailable.
    """
    wanted = [endpoint for endpoint in endpoints if endpoint.scheme == "tls"]
    if not wanted and settings is not None:
        raise UsageError("there is a certificate for TLS, and no tls:// endpoint to show it on")
    if not wanted:
        return None, ""
    if settings is None:
        ways = "give one (--tls-cert FILE), or have one made (--tls-self-signed)"
        raise UsageError(f"{wanted[0]} shows a certificate: {ways}")
    context, fingerprint = settings.context([endpoint.host for endpoint in wanted])
    return TlsLayer(context), fingerprint
