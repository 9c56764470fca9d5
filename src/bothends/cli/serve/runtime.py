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
from bothends.events import Event, Failed, Observer, Troubles
from bothends.layers import TlsSettings
from bothends.log import Calm, JsonLog, Pieces, TextLog
from bothends.metrics import Metrics, text_format
from bothends.server import Server, prepare_tls
from bothends.services import registry as services
from bothends.services.base import Service
from bothends.services.http_pages import Page, Pages

# Scrapers are few and quick. Whoever is neither must not cost the server anything.
_PAGES_LIMITS: Final = Limits(connections=32, when_full="refuse", idle=10.0, life=30.0, drain=1.0)

# It keeps nothing in the kernel that a process which the server forks off would share.
_PAGES_ENGINE: Final = "poll"


class Serving:
    """A server, bound, and what belongs to it.

    Args:
        options: what was asked for.
        among_others: there are several, so the log says which one speaks.

    Raises:
        BothendsError: whatever keeps a server from being bound; nothing is then.
    """

    def __init__(self, options: ServeOptions, *, among_others: bool = False) -> None:
        self.options = options
        self._in_child = False
        service, engine = what_to_serve(options)
        self._metrics = Metrics() if options.metrics else None
        show = text_format(self._metrics, self._is_draining) if self._metrics is not None else None
        self.observe = observer(options, service, self._metrics, among_others=among_others)
        self.server = Server(
            service,
            options.endpoints,
            engine=engine,
            workers=options.workers,
            limits=options.limits,
            observe=self.observe,
            tls=_tls_for(options, options.endpoints),
            takeover=str(options.takeover) if options.takeover is not None else None,
            origin=options.service or None,
        )
        self.pages: Server | None = None
        if show is None:
            return

        def metrics_page() -> Page:
            body, media_type = show()
            return Page(body, media_type)

        try:
            self.pages = Server(
                Pages({"/metrics": metrics_page, "/health": self._health_page}),
                options.metrics,
                engine=_PAGES_ENGINE,
                limits=_PAGES_LIMITS,
                observe=self._tell_failures,
                tls=_tls_for(options, options.metrics),
                takeover=f"{options.takeover}.metrics" if options.takeover is not None else None,
            )
        except BaseException:
            self.server.close()
            raise

    @property
    def shown_at(self) -> list[Endpoint]:
        """Where metrics and health are shown, with the real ports."""
        return self.pages.endpoints if self.pages is not None else []

    def run(self, ready: Callable[[], object] | None = None) -> None:
        """Serve until told to stop. Metrics are shown from when newcomers are served until all have left.

        `ready` is called when newcomers are about to be served.
        """
        if self._metrics is not None:
            self._metrics.serve_here()
        with contextlib.ExitStack() as stack:
            if self.pages is not None and not self._in_child:
                # Before the server's own: once its listeners are handed over, the process before us leaves.
                stack.enter_context(self.pages.handing_over())

            def begin() -> None:
                if self.pages is not None:
                    stack.enter_context(self.pages)
                if ready is not None:
                    ready()

            self.server.run(begin)

    def move_here(self) -> None:
        """In a child after fork: it will run what its parent has bound."""
        self._in_child = True
        for server in self._servers():
            server.move_here()

    def leave_to_others(self) -> None:
        """In a child after fork, which runs another server."""
        for server in self._servers():
            server.leave_to_others()

    @contextlib.contextmanager
    def handing_over(self) -> Iterator[None]:
        """In the parent of a child that runs it: see `Server.handing_over`."""
        with contextlib.ExitStack() as stack:
            for server in reversed(self._servers()):
                stack.enter_context(server.handing_over())
            yield

    def let_go(self) -> None:
        """In the parent of a child that runs it: close the listeners."""
        for server in self._servers():
            server.let_go()

    def close(self) -> None:
        """Give everything back."""
        for server in self._servers():
            server.close()

    def _servers(self) -> list[Server]:
        return [self.server] if self.pages is None else [self.server, self.pages]

    def _is_draining(self) -> bool:
        return self.server.is_draining

    def _health_page(self) -> Page:
        if self._is_draining():
            return Page(b"draining\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Page(b"ok\n")

    def _tell_failures(self, event: Event) -> None:
        """Of the pages' own events, what is a mistake of ours. Scrapes are no news."""
        if isinstance(event, Failed):
            self.observe(event)


def what_to_serve(options: ServeOptions) -> tuple[Service, str | type[Engine] | None]:
    """The service, and which engine is asked for.

    Raises:
        UnknownName, ServiceError, Unavailable: it can't be loaded.
    """
    if options.exec:
        from bothends.engines.command import Command, CommandEngine

        return Command(options.exec, shell=options.shell), CommandEngine
    return services.load(options.service), options.engine


def check(options: ServeOptions) -> type[Engine]:
    """Look at all that can be looked at without binding anything; the engine that would run.

    Raises:
        BothendsError: why it would not.
    """
    service, engine = what_to_serve(options)
    chosen = choose_engine(engine, service, options.endpoints, options.limits, options.workers)
    for endpoints in (options.endpoints, options.metrics):
        prepare_tls(endpoints, _tls_for(options, endpoints))
    if options.metrics:
        metrics = Metrics()
        text_format(metrics, lambda: False)
        metrics.close()
        choose_engine(_PAGES_ENGINE, Pages({}), options.metrics, _PAGES_LIMITS, 1)
    return chosen


def observer(
    options: ServeOptions, service: Service, metrics: Metrics | None, *, among_others: bool = False
) -> Observer:
    """Who is told of everything: the log, and the metrics and the trace if they are wanted.

    Raises SystemRefused where the trace can't be written.
    """
    name = options.title if among_others else ""
    told: Observer
    tellers: list[Observer] = [] if metrics is None else [metrics]
    if options.trace is not None:
        from bothends.trace.capture.event_recorder import Observed

        tellers.append(Observed(options.trace, name or "server"))
    if options.log == "json":
        told = JsonLog(sys.stdout, quiet=options.quiet, messages=service.shows, dump=options.hex, name=name)
    else:
        # On standard output a conversation may be going on.
        stdio = any(endpoint.scheme == "stdio" for endpoint in options.endpoints)
        told = TextLog(
            messages=(sys.stderr if stdio else sys.stdout) if service.shows or not options.quiet else None,
            happenings=None if options.quiet else sys.stderr,
            troubles=sys.stderr,
            colour=terminal.has_colour,
            dump=options.hex,
            name=name,
        )
        told = told if options.hex else Pieces(told)
    calm = Calm(told)
    if not tellers:
        return Troubles(calm) if options.quiet and not service.shows else calm

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
