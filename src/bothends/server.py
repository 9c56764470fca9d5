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
from bothends.engines.base import Engine, Job, Limits
from bothends.engines.processes import Workers
from bothends.engines.selection import check_ready_made, choose_engine, refusal_of
from bothends.engines.shutdown import Stop
from bothends.errors import BothendsError, CallerError, SystemRefused
from bothends.events import Event, Listening, NotReloaded, Observer, Reloaded, Stopped
from bothends.layers import TlsLayer, TlsSettings, opener_for
from bothends.osutil.signals import heeding_signals, is_main_thread
from bothends.services import registry as services
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.services.functions import stream
from bothends.sockets import Listener, open_listeners
from bothends.sockets.systemd import notify, watchdog
from bothends.sockets.takeover import offering, take_over


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
        options: Mapping[str, Any] | None = None,
        takeover: str | None = None,
        tls: TlsSettings | None = None,
        origin: str | None = None,
    ) -> None:
        self._origin = service if isinstance(service, str) else origin
        self.service = _as_service(service)
        self.limits = limits or Limits()
        self.workers = workers
        asked = [Endpoint.parse(each) if isinstance(each, str) else each for each in endpoints]
        if not asked:
            raise CallerError("no endpoint to listen on; try tcp://:12000")
        self.engine = choose_engine(engine, self.service, asked, self.limits, workers)
        self.tls = tls
        self._tls, self.tls_fingerprint = prepare_tls(asked, tls)
        """SHA-256 of the certificate that is shown, in hexadecimal; "" without TLS."""
        self._options = dict(options or {})
        self._observe = observe
        self._stop = Stop()
        self._thread: threading.Thread | None = None
        self._crash: BaseException | None = None
        self._running: Engine | None = None
        self._workers: Workers | None = None
        self._takeover = takeover
        self._leader = os.getpid()  # of the processes that serve, the one that the others are children of
        self._has_superior = False
        self._handed_over = False
        self._inheritance = take_over(takeover) if takeover is not None else None
        self._listeners: list[Listener] = []
        try:
            for endpoint in asked:
                inherited = self._inheritance.claim(endpoint) if self._inheritance is not None else []
                self._listeners += inherited or open_listeners(endpoint)
            # Of a descriptor that somebody else opened, only now is known what it is.
            real = [each.endpoint for each in self._listeners]
            self.engine = choose_engine(engine, self.service, real, self.limits, workers)
            if ready_made := [each for each in self._listeners if each.role == "connection"]:
                check_ready_made(self.engine, ready_made[0], workers)
        except BaseException:
            self.close()
            raise
        self.endpoints: list[Endpoint] = [each.endpoint for each in self._listeners]
        """Where it listens, with the real ports."""
        for endpoint in self.endpoints:
            self._tell(Listening(endpoint))

    def run(self, ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop. In the main thread, SIGINT and SIGTERM tell it: the first to
        drain, the second to stop at once; and SIGHUP to reload the service.

        `ready` is called when signals are minded and connections about to be served. A service manager
        that wants to know it is told too (sd_notify(3)), unless this is but a part of a program: a thread of
        it, or a process of several.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            stack.enter_context(heeding_signals(self, only_hangup=self._has_superior))
            if not self._has_superior and not self._handed_over:
                stack.enter_context(self.handing_over())
            if ready is not None:
                ready()
            if not self._has_superior and is_main_thread():
                stack.enter_context(announced())
            if self.workers > 1:
                self._run_workers()
            else:
                self._run_engine(self._stop)

    def move_here(self) -> None:
        """In a child after fork: this process will `run` the server that its parent has bound.

        The parent's copy can stop it (`drain`, `abort`), and so does the parent's death.
        """
        superior, self._stop = self._stop, Stop()
        superior.disown()
        self._has_superior = True
        self._leader = os.getpid()
        threading.Thread(target=self._obey, args=(superior,), name="bothends-obey", daemon=True).start()

    def leave_to_others(self) -> None:
        """In a child after fork, which has nothing to do with this server: keep nothing of it."""
        self._stop.disown()  # or it could not be told to stop while we live
        self.let_go()

    def _obey(self, superior: Stop) -> None:
        superior.draining.wait()
        self.drain()
        superior.aborting.wait()
        self.abort()

    @contextlib.contextmanager
    def handing_over(self) -> Iterator[None]:
        """While inside, the process before us leaves, and whoever comes after us is offered the listeners.
        Part of `run`, unless it was begun before; not for a server that runs in a child (`move_here`)."""
        self._handed_over = True
        if self._inheritance is not None:
            with contextlib.suppress(SystemRefused):  # the old one has gone already: all is ours
                self._inheritance.confirm()
        if self._takeover is None:
            yield
            return
        with offering(self._takeover, self._listeners, self.drain):
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
            if self._origin is None:
                raise CallerError("it was given as an object, not as a name")
            fresh = services.load(self._origin)
            refusal = refusal_of(self.engine, fresh, self.endpoints, self.limits, self.workers)
            if refusal is not None:
                raise refusal
            if self._tls is not None and self.tls is not None and not self.tls.self_signed:
                context, self.tls_fingerprint = self.tls.context()
                self._tls.use(context)
        except BothendsError as error:
            self._tell(NotReloaded(self.service.name, str(error)))
            return
        self.service = fresh
        if self._running is not None:
            self._running.reload(fresh)
        if self._workers is not None:
            self._workers.hang_up()
        if os.getpid() == self._leader:
            self._tell(Reloaded(fresh.name))  # once, and not by each worker

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
            self.let_go()
            for listener in self._listeners:
                listener.wait_pumped(self.limits.drain)  # the last words on their way to standard output
            if self._inheritance is not None:
                self._inheritance.close()
            self._tell(Stopped())

    def let_go(self) -> None:
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

    def _run_engine(self, stop: Stop) -> None:
        shared = self.workers > 1
        job = Job(self.service, self._listeners, stop, self.limits, self._observe, shared=shared)

        def open_current(peer: Peer, post: Post) -> Conversation:
            return job.service.open(peer, post)  # another one after a reload

        job.opener = opener_for(open_current, self._listeners, self._tls)
        self._running = self.engine(job, **self._options)
        self._running.reload(self.service)  # which another thread may just have loaded anew
        self._running.run()

    def _tell(self, event: Event) -> None:
        if self._observe is not None:
            self._observe(event)

    def _run_workers(self) -> None:
        # The workers wait for the same sockets, and each connection goes to whichever is free. With
        # a socket of its own for each (SO_REUSEPORT), a worker that stops or dies would take with
        # it the connections that the kernel has already put into its queue.
        def work(stop: Stop) -> None:
            self._workers = None  # the parent's
            self._run_engine(stop)

        self._workers = Workers(
            self.workers, work, self._stop, self._observe, grace=self.limits.drain, on_drain=self.let_go
        )
        self._workers.run()


@contextlib.contextmanager
def announced() -> Iterator[None]:
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


def prepare_tls(asked: Sequence[Endpoint], settings: TlsSettings | None) -> tuple[TlsLayer | None, str]:
    """What speaks TLS on these endpoints, if any of them does, and its certificate's fingerprint.

    Raises CallerError, SystemRefused, Unavailable.
    """
    wanted = [endpoint for endpoint in asked if endpoint.scheme == "tls"]
    if not wanted and settings is not None:
        raise CallerError("there is a certificate for TLS, and no tls:// endpoint to show it on")
    if not wanted:
        return None, ""
    if settings is None:
        ways = "give one (--tls-cert FILE), or have one made (--tls-self-signed)"
        raise CallerError(f"{wanted[0]} shows a certificate: {ways}")
    context, fingerprint = settings.context([endpoint.host for endpoint in wanted])
    return TlsLayer(context), fingerprint
