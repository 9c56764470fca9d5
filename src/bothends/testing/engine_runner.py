"""Running one engine to its end, and saying what it leaves behind. The child's side of `harness.py`."""

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

# Signals that a server has no other use for, so an engine may have SIGTERM and SIGINT to itself.
DRAIN = signal.SIGUSR1
ABORT = signal.SIGUSR2


def load_engine(name: str) -> type[Engine]:
    """An engine's class, by its name or as "module:Class"."""
    return registry.load(name)


def preload(spec: RunSpec) -> None:
    """Load and make what a child that runs the order would otherwise load and make for itself."""
    load_engine(spec.engine)
    if spec.tls is not None:
        _tls_layer(spec.tls)


@functools.cache
def _tls_layer(settings: TlsSettings) -> TlsLayer:
    context, _ = settings.context()
    return TlsLayer(context)


def run(spec: RunSpec, sock: socket.socket) -> int:
    """Serve until told to stop by a signal; the status to exit with."""
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
    asked = [Endpoint.parse(text) for text in spec.endpoints]
    chosen = choose_engine(load_engine(spec.engine), service, asked, spec.limits, workers=1)
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(listener) for endpoint in asked for listener in open_listeners(endpoint)
        ]
        tls = None if spec.tls is None else _tls_layer(spec.tls)
        opener = opener_for(service.open, listeners, tls)
        engine = chosen(EngineContext(service, listeners, stop, spec.limits, observe, opener))
        ipc.send(sock, Ready([listener.endpoint for listener in listeners]))
        if spec.start_paused:
            os.kill(os.getpid(), signal.SIGSTOP)
        engine.run()
    stop.close()
    return _find_leftovers(before)


def _find_leftovers(before: dict[int, str]) -> Leftovers:
    after = process_info.descriptors()
    left = [what for number, what in sorted(after.items()) if number not in before]
    # The listing's own descriptor is gone by the time it is looked at, so it isn't among them.
    threads = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    own = process_info.process_tree(os.getpid())[1:]
    return Leftovers(left, threads, [str(each) for each in own])
