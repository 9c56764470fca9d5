"""`bothends connect -l`: the end that is called, as netcat can be it.

1. One connection at a time. Once it is there, nobody listens any more, unless `keep` (-k) asks for the
   next one: then the others wait in the listener's queue.
2. Where it listens is always told, with the real port.
3. A datagram socket has no connection: whoever sends is heard, and our lines go to the one that was
   heard last.
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
from bothends.cli.connect.session import ConnectOptions, hex_dump_watcher, run_session, stdout_sink
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

TIMEOUT: Final = 10.0  # seconds: nothing here waits by it, for the pump and the prompt have their own limits


def listen_endpoint(words: Sequence[str], scheme: str, host: str, port: int | None) -> Endpoint:
    """Where to listen: a URL or the usual words, or a bare port as netcat has it, or -s and -p.

    Raises EndpointError, UnknownName, click.UsageError.
    """
    if port is not None:
        if len(words) > 1 or (words and (words[0].isdigit() or "://" in words[0])):
            raise click.UsageError(f"-l -p {port} takes a host and nothing else: {' '.join(words)}")
        return Endpoint(scheme, host=words[0] if words else host, port=port)
    if len(words) == 1 and words[0].isascii() and words[0].isdigit() and scheme in ("tcp", "udp"):
        return Endpoint(scheme, host=host, port=int(words[0]))
    found = endpoints_from_args(words, scheme)
    if len(found) != 1:
        raise click.UsageError("-l listens on one endpoint: " + ", ".join(map(str, found)))
    return found[0].with_host(host) if host and not found[0].host else found[0]


def listen_and_serve(endpoint: Endpoint, options: ConnectOptions, *, keep_listening: bool) -> None:
    """Listen, and talk to whoever connects; to all of them, one after the other, if `keep`.

    Raises what `open_listeners` and `converse` do; with `keep`, the end of one connection is only told.
    """
    if endpoint.scheme == "tls" or endpoint.wrappers:
        reason = "-l talks in the clear only"
        raise EndpointError(str(endpoint), reason, "bothends serve speaks TLS and takes PROXY headers")
    with contextlib.ExitStack() as stack:
        listeners = open_listeners(endpoint)
        for listener in listeners:
            stack.enter_context(listener)
        if listeners[0].role == "connection":
            raise EndpointError(str(endpoint), "it is a connection already", "connect without -l takes it")
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
                stack.close()  # whoever comes now is refused, instead of waiting for nothing
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
    """The next connection."""
    poller = select.poll()
    by_descriptor = {listener.fileno(): listener for listener in listeners}
    for listener in listeners:
        listener.socket.setblocking(False)
        poller.register(listener.socket, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            listener = by_descriptor[descriptor]
            try:
                sock, sockaddr = listener.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):  # it has gone again (accept(2))
                continue
            except OSError as error:
                raise SystemCallFailed("accept from", listener.endpoint.label, error.errno or 0) from error
            prepare_accepted(sock, listener.endpoint)
            return Connection(
                sock, _peer_endpoint(listener, Address.from_sockaddr(sock.family, sockaddr)), TIMEOUT
            )


def _peer_endpoint(listener: Listener, address: Address) -> Endpoint:
    """Who has connected, as far as he has a name; for the words of errors."""
    try:
        return address.to_endpoint(listener.endpoint.scheme)
    except BothendsError:
        return listener.endpoint


class DatagramRelay:
    """Datagrams from everybody to standard output, and lines of standard input to the one heard last.

    Lines are not read before there is someone to send them to. `manner.quit_after` and `manner.within`
    count from the last datagram; before the first one there is no limit.
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
        """Until standard input has ended and nothing has come for `quit_after`; for ever without it.

        Raises:
            TimeLimit: nothing has come for `within`.
            SystemRefused: standard input can't be read.
            BrokenPipeError: nobody reads standard output.
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
        leave, give_up = self._deadlines()
        due = min((each for each in (leave, give_up) if each is not None), default=None)
        seconds = None if due is None else max(0.0, due - time.monotonic())
        ready = poller.poll(None if seconds is None else seconds * 1000)
        for descriptor, _ in ready:
            if descriptor in self._listeners:
                self._receive(self._listeners[descriptor])
            elif self._input_fd is not None:
                self._read(self._input_fd)
        if not ready and due is not None and time.monotonic() >= due:
            if due == leave:
                return False
            raise TimeoutExpired(self._label, "waiting for a datagram", self._options.timeout or 0.0)
        return True

    def _deadlines(self) -> tuple[float | None, float | None]:
        """When to leave, and when to give up."""
        leave = give_up = None
        if self._options.quit_after is not None and self._input_fd is None and not self._send_queue:
            leave = max(self._last_received, self._input_ended) + self._options.quit_after
        if self._options.timeout is not None and self._last_received:
            give_up = self._last_received + self._options.timeout
        return leave, give_up

    def _receive(self, listener: Listener) -> None:
        try:
            data, _, sender, ancillary = receive_datagram(
                listener.socket, MAX_MESSAGE, wildcard=self._wildcard[listener.fileno()]
            )
        except BlockingIOError:
            return  # a datagram with a wrong checksum woke us (select(2), BUGS)
        except OSError as error:
            terminal.error(str(translate_oserror(error, "receiving", self._label, datagrams=True)))
            return
        self._last_received = time.monotonic()
        last = (listener, sender, ancillary) if sender else None
        if self._observe is not None:
            self._observe(Received(0, Address.from_sockaddr(listener.socket.family, sender), data))
        if self._announces_peers and (not self._last_sender or not last or self._last_sender[1] != last[1]):
            who = Address.from_sockaddr(listener.socket.family, sender)
            terminal.note(
                f"{who} is heard" + (": answers go there" if last else ", and has no name to answer to")
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
            # The next one may fare better, and whoever is gone may be followed by another.
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
