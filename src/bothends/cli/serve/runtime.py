"""Create a server from `ServeOptions`, with its log, its metrics, and the HTTP server that shows them.

This is the only module that turns the fields of `ServeOptions` into arguments of `Server`, both for the
command line and for a configuration file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final

from bothends.cli import terminal
from bothends.cli.output_files import OutputFiles, is_same_file
from bothends.configuration import ServeOptions
from bothends.endpoints import Endpoint
from bothends.engines.base import Engine, Limits
from bothends.engines.selection import choose_engine
from bothends.events import (
    CountedTraffic,
    Event,
    FilteredObserver,
    LineFormat,
    LoggedTraffic,
    Observer,
    ProblemsOnly,
    ServiceFailed,
    WithoutMessages,
)
from bothends.layers import TlsSettings
from bothends.log import JsonLog, LineCoalescer, LineStream, RepeatThrottle, TextLog, missing_record
from bothends.metrics import Metrics, prometheus_exporter
from bothends.osutil.observer_file import ObserverFile
from bothends.server import Server, prepare_tls
from bothends.services import registry as services
from bothends.services.base import Service
from bothends.services.http_pages import HttpPage, HttpPages

# A Prometheus scraper opens few connections and closes them soon; others must not use the server's resources.
# An idle one is closed for a new one, so that connections alone cannot keep a scraper out.
_METRICS_LIMITS: Final = Limits(connections=32, when_full="evict", idle=10.0, life=30.0, drain=1.0)

# poll() has no kernel object that a forked child process would share, as epoll(7) has.
_METRICS_ENGINE: Final = "poll"


class ServerRuntime:
    """A bound server with its log, its metrics and its metrics server.

    Args:
        options: the server's options.
        files: the files of the log and the trace, which the caller closes.
        one_of_several: start each log line with the server's name.

    Raises:
        BothendsError: the server or its metrics endpoint cannot be bound; then neither is.
    """

    def __init__(self, options: ServeOptions, files: OutputFiles, *, one_of_several: bool = False) -> None:
        self.options = options
        self._in_child = False
        service, engine = load_service(options)
        self._metrics = Metrics() if options.metrics else None
        show = prometheus_exporter(self._metrics, self._is_draining) if self._metrics is not None else None
        self.observe = build_observer(options, service, self._metrics, files, one_of_several=one_of_several)
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

        hosts = {os.uname().nodename, *(endpoint.host for endpoint in options.metrics if endpoint.host)}
        try:
            self.metrics_server = Server(
                HttpPages({"/metrics": metrics_page, "/health": self._health_page}, hosts),
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
        """Endpoints of the metrics server, with their real ports."""
        return self.metrics_server.endpoints if self.metrics_server is not None else []

    def run(self, on_ready: Callable[[], object] | None = None) -> None:
        """Serve until stopped. Metrics are available until the last connection has closed.

        `on_ready` is called just before the server starts to accept.
        """
        if self._metrics is not None:
            self._metrics.set_server_process()
        with contextlib.ExitStack() as stack:
            if self.metrics_server is not None and not self._in_child:
                # Before the server's own listeners: once those are handed over, the old process exits.
                stack.enter_context(self.metrics_server.offer_listeners())

            def begin() -> None:
                if self.metrics_server is not None:
                    stack.enter_context(self.metrics_server)
                if on_ready is not None:
                    on_ready()

            self.server.run(begin)

    def adopt_in_child(self) -> None:
        """Prepare to run this server in a forked child of the process that has bound it."""
        self._in_child = True
        for server in self._servers():
            server.adopt_in_child()

    def discard_in_child(self) -> None:
        """Release this server's resources in a forked child that runs another server."""
        for server in self._servers():
            server.discard_in_child()

    @contextlib.contextmanager
    def offer_listeners(self) -> Iterator[None]:
        """Offer the listeners for takeover in the parent of the serving child (`Server.offer_listeners`)."""
        with contextlib.ExitStack() as stack:
            for server in reversed(self._servers()):
                stack.enter_context(server.offer_listeners())
            yield

    def close_listeners(self) -> None:
        """Close the listeners in the parent of the serving child."""
        for server in self._servers():
            server.close_listeners()

    def close(self) -> None:
        """Close everything that is bound."""
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
        """Pass on internal errors of the metrics server; its connections are not logged."""
        if isinstance(event, ServiceFailed):
            self.observe(event)


def load_service(options: ServeOptions) -> tuple[Service, str | type[Engine] | None]:
    """Load the service of a server, and return it with the requested engine.

    Raises:
        UnknownName, ServiceError, Unavailable: the service cannot be loaded.
    """
    if options.exec:
        from bothends.engines.command import CommandEngine, CommandService

        return CommandService(options.exec, shell=options.shell), CommandEngine
    return services.load(options.service), options.engine


def dry_run(options: ServeOptions) -> type[Engine]:
    """Check a server's options without binding anything.

    Returns: the engine that would run.

    Raises:
        BothendsError: the server would not start.
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
    options: ServeOptions,
    service: Service,
    metrics: Metrics | None,
    files: OutputFiles,
    *,
    one_of_several: bool = False,
) -> Observer:
    """Return the observer of a server: its log, and its metrics and trace if requested.

    Raises:
        SystemCallFailed: the trace file cannot be written.
    """
    name = options.title if one_of_several else ""
    quiet = options.level == "problems"
    log: Observer
    line_format: LineFormat | None
    streams: list[LineStream]
    observers: list[Observer] = [] if metrics is None else [metrics]
    if options.trace is not None:
        from bothends.trace.capture.event_recorder import EventRecorder

        observers.append(files.closing(EventRecorder(options.trace, name or "server", report=files.warn)))
    if options.log == "json":
        stdout = files.stream(sys.stdout, missing_record)
        log = JsonLog(stdout, quiet=quiet, messages=service.log_messages, dump=options.hex, name=name)
        line_format = log.line_format()
        streams = [stdout]
    else:
        # With a stdio: endpoint, standard output belongs to the conversation.
        stdio = any(endpoint.scheme == "stdio" for endpoint in options.endpoints)
        messages = files.stream(sys.stderr if stdio else sys.stdout)
        problems = files.stream(sys.stderr)
        text_log = TextLog(
            messages=messages if service.log_messages or not quiet else None,
            activity=None if quiet else problems,
            problems=problems,
            colour=terminal.has_colour,
            dump=options.hex,
            name=name,
        )
        is_one_file = is_same_file(messages, problems)
        line_format = text_log.line_format(is_one_file=is_one_file)
        streams = [] if is_one_file else [messages, problems]
        coalescer = LineCoalescer(text_log)
        log = text_log if options.hex else coalescer
        line_format = None if line_format is None else coalescer.line_format(line_format)
    throttled = RepeatThrottle(log)
    filtered = None if service.log_messages else filter_for(options, throttled)
    if line_format is not None and options.trace is None and not isinstance(filtered, ProblemsOnly):
        log_files = [stream for stream in streams if isinstance(stream, ObserverFile)]
        return LoggedTraffic(filtered or throttled, line_format, metrics, log_files)
    if filtered is not None and options.trace is None:
        return filtered if metrics is None else CountedTraffic(metrics, filtered)
    if not observers:
        return throttled
    observers.append(filtered or throttled)

    def observe_all(event: Event) -> None:
        for observe in observers:
            observe(event)

    return observe_all


def filter_for(options: ServeOptions, log: Observer) -> FilteredObserver | None:
    """Return an observer that passes on what is logged at this level; None for the level "messages"."""
    if options.level == "problems":
        return ProblemsOnly(log)
    return WithoutMessages(log) if options.level == "connections" else None


def _tls_for(options: ServeOptions, endpoints: tuple[Endpoint, ...]) -> TlsSettings | None:
    """Return the TLS settings for these endpoints, if one of them is tls://.

    If no endpoint is, the service's endpoints get the settings, and `Server` rejects them.
    """
    unused = not any(each.scheme == "tls" for each in (*options.endpoints, *options.metrics))
    wanted = any(each.scheme == "tls" for each in endpoints) or (unused and endpoints == options.endpoints)
    return options.tls if wanted else None
