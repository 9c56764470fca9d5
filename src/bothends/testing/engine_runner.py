"""Run one engine, and report the resources that it leaves open. The child side of `harness.py`."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import threading
import traceback
from typing import Any

from bothends.endpoints import Endpoint
from bothends.engines import registry
from bothends.engines.base import Engine, EngineContext
from bothends.engines.selection import choose_engine
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import UnsupportedCombination
from bothends.layers import TlsLayer, TlsSettings, opener_for
from bothends.osutil import process_info
from bothends.sockets import open_listeners
from bothends.testing import ipc
from bothends.testing.ipc import Crashed, Leftovers, Ready, RunSpec, SignalReceived

# Signals that a server does not use otherwise, so that SIGTERM and SIGINT are free for the engine.
DRAIN = signal.SIGUSR1
ABORT = signal.SIGUSR2


def load_engine(name: str) -> type[Engine]:
    """Load an engine's class, by its name or as "module:Class"."""
    return registry.load(name)


def preload(spec: RunSpec) -> None:
    """Import the modules and create the certificate that `run` needs, once for all children."""
    load_engine(spec.engine)
    if spec.tls is not None:
        _tls_layer(spec.tls)


@functools.cache
def _tls_layer(settings: TlsSettings) -> TlsLayer:
    context, _ = settings.context()
    return TlsLayer(context)


def run(spec: RunSpec, sock: socket.socket) -> int:
    """Run an engine until a signal stops it, and report to `sock`. Returns the exit status."""
    try:
        ipc.send(sock, _serve(spec, sock))
    except UnsupportedCombination as error:
        ipc.send(sock, Crashed(traceback.format_exc(), error))
        return error.exit_status
    except BaseException:
        ipc.send(sock, Crashed(traceback.format_exc()))
        return 1
    return 0


def _serve(spec: RunSpec, sock: socket.socket) -> Leftovers:
    before = process_info.descriptors()
    stop = ShutdownFlags()

    def drain(number: int, _frame: Any) -> None:
        stop.draining.set()
        ipc.send(sock, SignalReceived(number))

    def abort(number: int, _frame: Any) -> None:
        stop.draining.set()
        stop.aborting.set()
        ipc.send(sock, SignalReceived(number))

    signal.signal(DRAIN, drain)
    signal.signal(ABORT, abort)
    service = spec.service()
    observe = ipc.observer(sock) if spec.observe else None
    endpoints = [Endpoint.parse(text) for text in spec.endpoints]
    engine_class = choose_engine(load_engine(spec.engine), service, endpoints, spec.limits, workers=1)
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(listener) for endpoint in endpoints for listener in open_listeners(endpoint)
        ]
        tls = None if spec.tls is None else _tls_layer(spec.tls)
        opener = opener_for(service.open, listeners, tls)
        engine = engine_class(EngineContext(service, listeners, stop, spec.limits, observe, opener))
        ipc.send(sock, Ready([listener.endpoint for listener in listeners]))
        if spec.start_paused:
            os.kill(os.getpid(), signal.SIGSTOP)
        engine.run()
    stop.close()
    return _find_leftovers(before)


def _find_leftovers(before: dict[int, str]) -> Leftovers:
    after = process_info.descriptors()
    # The descriptor that lists /proc/self/fd is closed before its entry is read, so it is not in the result.
    descriptors = [target for number, target in sorted(after.items()) if number not in before]
    threads = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    children = process_info.process_tree(os.getpid())[1:]
    return Leftovers(descriptors, threads, [str(each) for each in children])
