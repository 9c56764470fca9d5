"""`bothends connect -l`: accept a connection instead of opening one, as netcat does.

1. One connection at a time. The listener is closed once a connection is accepted, unless `keep_listening`
   (-k) is set: then other clients wait in the accept queue.
2. The listening endpoint is always printed, with the real port.
3. A datagram socket has no connection: datagrams of all peers are printed, and lines of standard input are
   sent to the peer that sent the last datagram.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import click

from bothends.cli import terminal
from bothends.cli.connect.options import ConnectOptions
from bothends.cli.connect.session import run_session, stdout_sink
from bothends.cli.connect.watchers import hex_dump_watcher
from bothends.client.blocking import Connection
from bothends.client.receive_buffer import MAX_MESSAGE, ReceiveBuffer, translate_oserror
from bothends.client.stdio_relay import read_input
from bothends.endpoints import Address, Endpoint, endpoints_from_args
from bothends.errors import BothendsError, EndpointError, PeerError, SystemCallFailed, TimeoutExpired
from bothends.events import Accepted, Listening, Received, Sent
from bothends.sockets import (
    Ancillary,
    Listener,
    enable_pktinfo,
    open_listeners,
    prepare_accepted,
    receive_datagram,
    send_datagram,
)

TIMEOUT: Final = 10.0  # seconds; required by Connection, but the relay and the prompt set their own timeouts

_MAX_SIGNAL_DELAY: Final = 1000  # milliseconds


def listen_endpoint(args: Sequence[str], scheme: str, host: str, port: int | None) -> Endpoint:
    """Return the endpoint to listen on: a URL, HOST PORT, a single port as in netcat, or -s and -p.

    Raises:
        EndpointError, UnknownName, click.UsageError: the arguments name no endpoint, or several.
    """
    if port is not None:
        if len(args) > 1 or (args and (args[0].isdigit() or "://" in args[0])):
            raise click.UsageError(f"-l -p {port} takes at most a host, but {' '.join(args)} was given")
        return Endpoint(scheme, host=args[0] if args else host, port=port)
    if len(args) == 1 and args[0].isascii() and args[0].isdigit() and scheme in ("tcp", "udp"):
        return Endpoint(scheme, host=host, port=int(args[0]))
    found = endpoints_from_args(args, scheme)
    if len(found) != 1:
        raise click.UsageError("-l listens on one endpoint, but got " + ", ".join(map(str, found)))
    return found[0].with_host(host) if host and not found[0].host else found[0]


def listen_and_serve(endpoint: Endpoint, options: ConnectOptions, *, keep_listening: bool) -> None:
    """Listen, accept a connection and run it; with `keep_listening`, one connection after the other.

    Raises:
        BothendsError: as `open_listeners` and `run_session`. With `keep_listening`, a connection's PeerError
            is printed instead.
    """
    if endpoint.scheme == "tls" or endpoint.wrappers:
        reason = "-l supports neither TLS nor PROXY headers"
        raise EndpointError(str(endpoint), reason, "bothends serve supports both")
    with contextlib.ExitStack() as stack:
        listeners = open_listeners(endpoint)
        for listener in listeners:
            stack.enter_context(listener)
        if listeners[0].role == "connection":
            raise EndpointError(str(endpoint), "already connected", "leave out -l")
        for shown in dict.fromkeys(listener.endpoint.label for listener in listeners):
            terminal.note(f"listening on {shown}", "")
        if options.observe is not None:
            for listener in listeners:
                options.observe(Listening(listener.endpoint))
        if listeners[0].role == "datagrams":
            DatagramRelay(listeners, options).run()
            return
        for number in itertools.count(1):
            connection = _accept(listeners)
            if options.observe is not None:
                options.observe(Accepted(number, connection.peer, connection.local))
            if not keep_listening:
                stack.close()  # further clients are refused, instead of waiting in the accept queue
            with connection:
                try:
                    run_session(connection, options, number=number)
                except PeerError as error:
                    if not keep_listening:
                        raise
                    terminal.error(str(error))
            if not keep_listening:
                return


def _accept(listeners: Sequence[Listener]) -> Connection:
    """Return the next connection.

    Raises:
        SystemCallFailed: accept(2) failed.
    """
    poller = select.poll()
    by_descriptor = {listener.fileno(): listener for listener in listeners}
    for listener in listeners:
        listener.socket.setblocking(False)
        poller.register(listener.socket, select.POLLIN)
    while True:
        # A signal just before poll() does not interrupt it, and Python's handler runs when it returns.
        for descriptor, _ in poller.poll(_MAX_SIGNAL_DELAY):
            listener = by_descriptor[descriptor]
            try:
                sock, sockaddr = listener.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):  # the client has already closed it (accept(2))
                continue
            except OSError as error:
                raise SystemCallFailed("accept from", listener.endpoint.label, error.errno or 0) from error
            prepare_accepted(sock, listener.endpoint)
            return Connection(
                sock, _peer_endpoint(listener, Address.from_sockaddr(sock.family, sockaddr)), TIMEOUT
            )


def _peer_endpoint(listener: Listener, address: Address) -> Endpoint:
    """Return the client's endpoint for error messages, or the listener's if the client has no address."""
    try:
        return address.to_endpoint(listener.endpoint.scheme)
    except BothendsError:
        return listener.endpoint


class DatagramRelay:
    """Print received datagrams, and send lines of standard input to the peer of the last one.

    Standard input is not read before the first datagram, because there is no peer to send to. The timeouts
    `options.quit_after` and `options.timeout` start at the last datagram; there is none before the first.
    """

    def __init__(self, listeners: Sequence[Listener], options: ConnectOptions) -> None:
        self._options = options
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._wildcard = {listener.fileno(): enable_pktinfo(listener.socket) for listener in listeners}
        for listener in listeners:
            listener.socket.setblocking(False)
        self._label = listeners[0].endpoint.label
        self._input_fd = None if options.messages or sys.stdin is None else sys.stdin.fileno()
        self._send_queue = deque(os.fsencode(message) + self._line_end for message in options.messages)
        self._input_lines = ReceiveBuffer(message_oriented=False, datagrams=False, limit=MAX_MESSAGE)
        self._sink = stdout_sink(separate=True)
        self._announces_peers = options.verbose or terminal.is_terminal(sys.stdout)
        self._watcher = hex_dump_watcher(terminal.note, message_oriented=True) if options.hex_dump else None
        self._observe = options.observe
        self._last_sender: tuple[Listener, Any, Ancillary] | None = None
        self._last_received = self._input_ended = 0.0

    @property
    def _line_end(self) -> bytes:
        return self._options.line_end(message_oriented=True) if self._options.newline else b""

    def run(self) -> None:
        """Run until EOF on standard input and `quit_after` seconds without a datagram; forever without -q.

        Raises:
            TimeoutExpired: no datagram within `options.timeout`.
            SystemCallFailed: standard input cannot be read.
            BrokenPipeError: the reader of standard output has closed it.
        """
        try:
            while self._run_once():
                pass
        finally:
            self._sink.finish()

    def _run_once(self) -> bool:
        while self._send_queue and self._last_sender is not None:
            self._send(self._send_queue.popleft(), *self._last_sender)
        poller = select.poll()
        for descriptor in self._listeners:
            poller.register(descriptor, select.POLLIN)
        if self._input_fd is not None and self._last_sender is not None:
            poller.register(self._input_fd, select.POLLIN)
        exit_at, timeout_at = self._deadlines()
        due = min((each for each in (exit_at, timeout_at) if each is not None), default=None)
        seconds = None if due is None else max(0.0, due - time.monotonic())
        ready = poller.poll(None if seconds is None else seconds * 1000)
        for descriptor, _ in ready:
            if descriptor in self._listeners:
                self._receive(self._listeners[descriptor])
            elif self._input_fd is not None:
                self._read(self._input_fd)
        if not ready and due is not None and time.monotonic() >= due:
            if due == exit_at:
                return False
            raise TimeoutExpired(self._label, "waiting for a datagram", self._options.timeout or 0.0)
        return True

    def _deadlines(self) -> tuple[float | None, float | None]:
        """Return when to exit and when to raise TimeoutExpired (time.monotonic), each None for never."""
        exit_at = timeout_at = None
        if self._options.quit_after is not None and self._input_fd is None and not self._send_queue:
            exit_at = max(self._last_received, self._input_ended) + self._options.quit_after
        if self._options.timeout is not None and self._last_received:
            timeout_at = self._last_received + self._options.timeout
        return exit_at, timeout_at

    def _receive(self, listener: Listener) -> None:
        try:
            data, _, sender, ancillary = receive_datagram(
                listener.socket, MAX_MESSAGE, wildcard=self._wildcard[listener.fileno()]
            )
        except BlockingIOError:
            return  # poll() reported a datagram whose checksum is wrong (select(2), BUGS)
        except OSError as error:
            terminal.error(str(translate_oserror(error, "receiving", self._label, datagrams=True)))
            return
        self._last_received = time.monotonic()
        last = (listener, sender, ancillary) if sender else None
        if self._observe is not None:
            self._observe(Received(0, Address.from_sockaddr(listener.socket.family, sender), data))
        if self._announces_peers and (not self._last_sender or not last or self._last_sender[1] != last[1]):
            peer = Address.from_sockaddr(listener.socket.family, sender)
            terminal.note(
                f"receiving from {peer}"
                + (": lines are sent there" if last else ", which has no address to send to")
            )
        self._last_sender = last
        if self._watcher is not None:
            self._watcher("received", data)
        self._sink.feed(data)
        self._sink.flush()

    def _send(self, line: bytes, listener: Listener, to: Any, ancillary: Ancillary) -> None:
        try:
            send_datagram(listener.socket, line, to, ancillary)
        except OSError as error:
            # Not fatal: the next datagram may succeed, and another peer may send one.
            terminal.error(str(translate_oserror(error, "sending", self._label, datagrams=True)))
            return
        if self._watcher is not None:
            self._watcher("sent", line)
        if self._observe is not None:
            self._observe(Sent(0, Address.from_sockaddr(listener.socket.family, to), line))

    def _read(self, source: int) -> None:
        data = read_input(source)
        if data is None:
            return
        self._input_lines.feed(data)
        if not data:
            self._input_fd, self._input_ended = None, time.monotonic()
        while (line := self._input_lines.take_line()) is not None:
            self._send_queue.append(line + self._line_end)
