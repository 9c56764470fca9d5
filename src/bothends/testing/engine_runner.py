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
from bothends.engines.base import Engine, Job
from bothends.engines.selection import choose_engine
from bothends.engines.shutdown import Stop
from bothends.errors import CannotCarry
from bothends.layers import TlsLayer, TlsSettings, opener_for
from bothends.osutil import process_info
from bothends.sockets import open_listeners
from bothends.testing import ipc
from bothends.testing.ipc import Crashed, Left, Order, Ready, Told

# Signals that a server has no other use for, so an engine may have SIGTERM and SIGINT to itself.
DRAIN = signal.SIGUSR1
ABORT = signal.SIGUSR2


def load_engine(target: str) -> type[Engine]:
    """An engine's class, by its name or as "module:Class"."""
    return registry.load(target)


def prepare(order: Order) -> None:
    """Load and make what a child that runs the order would otherwise load and make for itself."""
    load_engine(order.engine)
    if order.tls is not None:
        _layer(order.tls)


@functools.cache
def _layer(settings: TlsSettings) -> TlsLayer:
    context, _ = settings.context()
    return TlsLayer(context)


def run(order: Order, line: socket.socket) -> int:
    """Serve until told to stop by a signal; the status to exit with."""
    try:
        ipc.send(line, _serve(order, line))
    except CannotCarry as error:
        ipc.send(line, Crashed(traceback.format_exc(), error))
        return error.exit_status
    except BaseException:
        ipc.send(line, Crashed(traceback.format_exc()))
        return 1
    return 0


def _serve(order: Order, line: socket.socket) -> Left:
    before = process_info.descriptors()
    stop = Stop()

    def drain(number: int, _frame: Any) -> None:
        stop.draining.set()
        ipc.send(line, Told(number))

    def abort(number: int, _frame: Any) -> None:
        stop.draining.set()
        stop.aborting.set()
        ipc.send(line, Told(number))

    signal.signal(DRAIN, drain)
    signal.signal(ABORT, abort)
    service = order.service()
    observe = ipc.observer(line) if order.observe else None
    asked = [Endpoint.parse(text) for text in order.endpoints]
    chosen = choose_engine(load_engine(order.engine), service, asked, order.limits, workers=1)
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(listener) for endpoint in asked for listener in open_listeners(endpoint)
        ]
        tls = None if order.tls is None else _layer(order.tls)
        opener = opener_for(service.open, listeners, tls)
        engine = chosen(Job(service, listeners, stop, order.limits, observe, opener))
        ipc.send(line, Ready([listener.endpoint for listener in listeners]))
        if order.held:
            os.kill(os.getpid(), signal.SIGSTOP)
        engine.run()
    stop.close()
    return _look_around(before)


def _look_around(before: dict[int, str]) -> Left:
    after = process_info.descriptors()
    left = [what for number, what in sorted(after.items()) if number not in before]
    # The listing's own descriptor is gone by the time it is looked at, so it isn't among them.
    threads = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    own = process_info.family(os.getpid())[1:]
    return Left(left, threads, [str(each) for each in own])
