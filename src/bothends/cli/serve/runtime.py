"""From options to servers that run: each with its log, its metrics, and the endpoint that shows them.

The one place where the fields of `ServeOptions` become arguments of `Server`, whether they came from a
command line or from a file.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final

from bothends.cli import terminal
from bothends.configuration import ServeOptions
from bothends.endpoints import Endpoint
from bothends.engines.base import Engine, Limits
from bothends.engines.selection import choose_engine
from bothends.events import Event, Observer, ProblemsOnly, ServiceFailed
from bothends.layers import TlsSettings
from bothends.log import JsonLog, LineCoalescer, RepeatThrottle, TextLog
from bothends.metrics import Metrics, prometheus_exporter
from bothends.server import Server, prepare_tls
from bothends.services import registry as services
from bothends.services.base import Service
from bothends.services.http_pages import HttpPage, HttpPages

# Scrapers are few and quick. Whoever is neither must not cost the server anything.
_METRICS_LIMITS: Final = Limits(connections=32, when_full="refuse", idle=10.0, life=30.0, drain=1.0)

# It keeps nothing in the kernel that a process which the server forks off would share.
_METRICS_ENGINE: Final = "poll"


class ServerRuntime:
    """A server, bound, and what belongs to it.

    Args:
        options: what was asked for.
        among_others: there are several, so the log says which one speaks.

    Raises:
        BothendsError: whatever keeps a server from being bound; nothing is then.
    """

    def __init__(self, options: ServeOptions, *, one_of_several: bool = False) -> None:
        self.options = options
        self._in_child = False
        service, engine = load_service(options)
        self._metrics = Metrics() if options.metrics else None
        show = prometheus_exporter(self._metrics, self._is_draining) if self._metrics is not None else None
        self.observe = build_observer(options, service, self._metrics, one_of_several=one_of_several)
        self.server = Server(
            service,
            options.endpoints,
            engine=engine,
            workers=options.workers,
            limits=options.limits,
            observe=self.observe,
            tls=_tls_for(options, options.endpoints),
            takeover=str(options.takeover) if options.takeover is not None else None,
            service_spec=options.service or None,
        )
        self.metrics_server: Server | None = None
        if show is None:
            return

        def metrics_page() -> HttpPage:
            body, media_type = show()
            return HttpPage(body, media_type)

        try:
            self.metrics_server = Server(
                HttpPages({"/metrics": metrics_page, "/health": self._health_page}),
                options.metrics,
                engine=_METRICS_ENGINE,
                limits=_METRICS_LIMITS,
                observe=self._forward_failures,
                tls=_tls_for(options, options.metrics),
                takeover=f"{options.takeover}.metrics" if options.takeover is not None else None,
            )
        except BaseException:
            self.server.close()
            raise

    @property
    def metrics_endpoints(self) -> list[Endpoint]:
        """Where metrics and health are shown, with the real ports."""
        return self.metrics_server.endpoints if self.metrics_server is not None else []

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop. Metrics are shown from when newcomers are served until all have left.

        `ready` is called when newcomers are about to be served.
        """
        if self._metrics is not None:
            self._metrics.set_server_process()
        with contextlib.ExitStack() as stack:
            if self.metrics_server is not None and not self._in_child:
                # Before the server's own: once its listeners are handed over, the process before us leaves.
                stack.enter_context(self.metrics_server.offer_listeners())

            def begin() -> None:
                if self.metrics_server is not None:
                    stack.enter_context(self.metrics_server)
                if on_ready is not None:
                    on_ready()

            self.server.run(begin)

    def adopt_in_child(self) -> None:
        """In a child after fork: it will run what its parent has bound."""
        self._in_child = True
        for server in self._servers():
            server.adopt_in_child()

    def discard_in_child(self) -> None:
        """In a child after fork, which runs another server."""
        for server in self._servers():
            server.discard_in_child()

    @contextlib.contextmanager
    def offer_listeners(self) -> Iterator[None]:
        """In the parent of a child that runs it: see `Server.offer_listeners`."""
        with contextlib.ExitStack() as stack:
            for server in reversed(self._servers()):
                stack.enter_context(server.offer_listeners())
            yield

    def close_listeners(self) -> None:
        """In the parent of a child that runs it: close the listeners."""
        for server in self._servers():
            server.close_listeners()

    def close(self) -> None:
        """Give everything back."""
        for server in self._servers():
            server.close()

    def _servers(self) -> list[Server]:
        return [self.server] if self.metrics_server is None else [self.server, self.metrics_server]

    def _is_draining(self) -> bool:
        return self.server.is_draining

    def _health_page(self) -> HttpPage:
        if self._is_draining():
            return HttpPage(b"draining\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        return HttpPage(b"ok\n")

    def _forward_failures(self, event: Event) -> None:
        """Of the pages' own events, what is a mistake of ours. Scrapes are no news."""
        if isinstance(event, ServiceFailed):
            self.observe(event)


def load_service(options: ServeOptions) -> tuple[Service, str | type[Engine] | None]:
    """The service, and which engine is asked for.

    Raises:
        UnknownName, ServiceError, Unavailable: it can't be loaded.
    """
    if options.exec:
        from bothends.engines.command import CommandEngine, CommandService

        return CommandService(options.exec, shell=options.shell), CommandEngine
    return services.load(options.service), options.engine


def dry_run(options: ServeOptions) -> type[Engine]:
    """Look at all that can be looked at without binding anything; the engine that would run.

    Raises:
        BothendsError: why it would not.
    """
    service, engine = load_service(options)
    chosen = choose_engine(engine, service, options.endpoints, options.limits, options.workers)
    for endpoints in (options.endpoints, options.metrics):
        prepare_tls(endpoints, _tls_for(options, endpoints))
    if options.metrics:
        metrics = Metrics()
        prometheus_exporter(metrics, lambda: False)
        metrics.close()
        choose_engine(_METRICS_ENGINE, HttpPages({}), options.metrics, _METRICS_LIMITS, 1)
    return chosen


def build_observer(
    options: ServeOptions, service: Service, metrics: Metrics | None, *, one_of_several: bool = False
) -> Observer:
    """Who is told of everything: the log, and the metrics and the trace if they are wanted.

    Raises SystemRefused where the trace can't be written.
    """
    name = options.title if one_of_several else ""
    told: Observer
    tellers: list[Observer] = [] if metrics is None else [metrics]
    if options.trace is not None:
        from bothends.trace.capture.event_recorder import EventRecorder

        tellers.append(EventRecorder(options.trace, name or "server"))
    if options.log == "json":
        told = JsonLog(
            sys.stdout, quiet=options.quiet, messages=service.log_messages, dump=options.hex, name=name
        )
    else:
        # On standard output a conversation may be going on.
        stdio = any(endpoint.scheme == "stdio" for endpoint in options.endpoints)
        told = TextLog(
            messages=(sys.stderr if stdio else sys.stdout)
            if service.log_messages or not options.quiet
            else None,
            activity=None if options.quiet else sys.stderr,
            problems=sys.stderr,
            colour=terminal.has_colour,
            dump=options.hex,
            name=name,
        )
        told = told if options.hex else LineCoalescer(told)
    calm = RepeatThrottle(told)
    if not tellers:
        return ProblemsOnly(calm) if options.quiet and not service.log_messages else calm

    tellers.append(calm)

    def all_of_them(event: Event) -> None:
        for tell in tellers:
            tell(event)

    return all_of_them


def _tls_for(options: ServeOptions, endpoints: tuple[Endpoint, ...]) -> TlsSettings | None:
    """TLS settings are for either; where neither has a use for them, the server itself objects."""
    nobody = not any(each.scheme == "tls" for each in (*options.endpoints, *options.metrics))
    wanted = any(each.scheme == "tls" for each in endpoints) or (nobody and endpoints == options.endpoints)
    return options.tls if wanted else None
