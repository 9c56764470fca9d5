"""The honest client: it sends a request, reads the answer, and notes what it got and how long it took.

It has threads with blocking sockets, so that it measures the server and the kernel, not an event loop. One
opens a connection for each request. If the service allows it, another one keeps its connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from bothends.attack.expectation import DEFAULT_REQUEST, MAX_COMPARED, Expectation, infer_rule
from bothends.check.transcript import quote_bytes
from bothends.client.blocking import Connection, connect
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, ConnectionLost, PeerError, TimeoutExpired

INTERVAL: Final = 0.025  # seconds between two requests of one kind
_SETTLE: Final = 0.2  # seconds without a byte, after which an answer of unknown length is complete
_FIRST_ANSWER: Final = 1.0  # seconds to wait for the first byte of an unknown answer
_RETRIES: Final = 3  # of a datagram
_LEARNED: Final = 8  # answers
_LEARNING: Final = 1.2  # seconds over which they are spread, because a clock changes once a second

Outcome = Literal["right", "wrong", "refused", "lost", "unanswered"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One honest request. `seconds` until its answer, or until the client gave up; `kept`: on a connection
    that was there before; `late`: seconds by which the client itself was late to send it; `detail`, escaped.
    """

    started: float
    outcome: Outcome
    seconds: float
    kept: bool
    late: float = 0.0
    detail: str = ""


class HonestClient:
    """The honest client of one server. `timeout`: seconds after which a request counts as unanswered."""

    def __init__(
        self, endpoint: Endpoint, expectation: Expectation, timeout: float, tls: TlsOptions | None = None
    ) -> None:
        self.endpoint = endpoint
        self.expectation = expectation
        self.timeout = timeout
        self.samples: list[Sample] = []
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start to send requests."""
        kinds = [False, True] if self.expectation.kept and self.expectation.concurrent else [False]
        for kept in kinds:
            # Daemons: a request in progress doesn't delay the exit after ^C.
            thread = threading.Thread(target=self._run, args=[kept], daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop, after the requests in progress."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self.timeout * 4)

    def cancel(self) -> None:
        """Stop without waiting."""
        self._stopping.set()

    def taken(self, start: float, end: float) -> list[Sample]:
        """Return the samples that were started in a period of time.monotonic()."""
        with self._lock:
            return [each for each in self.samples if start <= each.started < end]

    def _run(self, kept: bool) -> None:
        connection: Connection | None = None
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            started = time.monotonic()
            with self._lock:
                number = self._number = self._number + 1
            try:
                if connection is None:
                    connection = self._connect()
                outcome, detail = self._exchange(connection, number)
            except BothendsError as error:
                outcome, detail = classify(error, connected=connection is not None), str(error)
            ended = time.monotonic()
            if connection is not None and (not kept or outcome != "right"):
                connection.close()
                connection = None
            sample = Sample(started, outcome, ended - started, kept, max(0.0, started - due), detail)
            with self._lock:
                self.samples.append(sample)
            due = max(due + INTERVAL, ended)
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        return connect(self.endpoint, timeout=self.timeout, tls=self._tls)

    def _exchange(self, connection: Connection, number: int) -> tuple[Outcome, str]:
        expected = self.expectation
        if not self.endpoint.is_stream:
            return self._exchange_datagrams(connection, number)
        deadline = time.monotonic() + self.timeout
        connection.send(expected.message(number))
        if expected.half_close:
            connection.half_close()
        data, eof = b"", False
        while not expected.is_complete(number, data, eof=eof):
            if expected.is_wrong(number, data):
                break
            if time.monotonic() > deadline:
                return "unanswered", f"only {quote_bytes(data)} came within {self.timeout:g} s"
            piece = connection.receive()
            data += piece
            eof = not piece
        if expected.is_right(number, data):
            return "right", ""
        if eof and not expected.is_wrong(number, data):
            return "lost", f"the server closed the connection after {quote_bytes(data)}"
        return "wrong", f"received {quote_bytes(data)} in place of {expected.reply(number)}"

    def _exchange_datagrams(self, connection: Connection, number: int) -> tuple[Outcome, str]:
        """Send a datagram, and again without an answer, because it may be lost (RFC 8085, section 3.1)."""
        expected = self.expectation
        if expected.rule == "silent":
            connection.send(expected.message(number))
            return "right", ""
        data = connection.request(expected.message(number), retries=_RETRIES)
        if expected.is_right(number, data):
            return "right", ""
        return "wrong", f"received {quote_bytes(data)} in place of {expected.reply(number)}"


def classify(error: BothendsError, *, connected: bool) -> Outcome:
    """Return what an error means for an honest client."""
    if isinstance(error, TimeoutExpired):
        return "unanswered"
    if isinstance(error, ConnectionLost) or (connected and isinstance(error, PeerError)):
        return "lost"
    return "refused"


def learn(
    endpoint: Endpoint,
    request: bytes | None,
    *,
    tls: TlsOptions | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Expectation:
    """Find out how a server answers, while nothing else goes on.

    Args:
        request: the request to send; None for a line of text, which gets a number if the server echoes.

    Raises:
        BothendsError: the server can't be reached, or its answers fail.
    """
    message = request if request is not None else DEFAULT_REQUEST
    if request is None and not endpoint.is_stream:
        message = message.rstrip(b"\n")
    answer, eof = _first_answer(endpoint, message, tls, half_close=False)
    half_close = False
    if not answer and not eof and endpoint.is_stream:
        answer, eof = _first_answer(endpoint, message, tls, half_close=True)
        half_close = bool(answer)
    answers = [answer]
    for _ in range(_LEARNED - 1):
        if not answer:
            break
        sleep(_LEARNING / _LEARNED)
        answers.append(_first_answer(endpoint, message, tls, half_close=half_close)[0])
    rule, right = infer_rule(message, answers)
    found = Expectation(
        message,
        rule,
        right,
        numbered=request is None and rule in ("echo", "upper"),
        half_close=half_close,
        until_eof=eof and endpoint.is_stream and rule != "silent",
    )
    kept, concurrent = _learn_connections(endpoint, found, tls)
    return replace(found, kept=kept, concurrent=concurrent)


def _first_answer(
    endpoint: Endpoint, message: bytes, tls: TlsOptions | None, *, half_close: bool
) -> tuple[bytes, bool]:
    """Send a request, and read until nothing more comes. Returns: the answer, and whether EOF ended it."""
    with connect(endpoint, timeout=_FIRST_ANSWER, tls=tls) as connection:
        connection.send(message)
        if half_close:
            connection.half_close()
        data = b""
        try:
            while len(data) < MAX_COMPARED:
                piece = connection.receive()
                data += piece
                if not piece or not endpoint.is_stream:
                    return data, not piece
                connection.core.timeout = _SETTLE
        except TimeoutExpired:
            pass
        except ConnectionLost:
            if not data:
                raise
            return data, True
        return data[:MAX_COMPARED], False


def _learn_connections(endpoint: Endpoint, found: Expectation, tls: TlsOptions | None) -> tuple[bool, bool]:
    """Find out whether a connection takes several requests, and whether there may be several at a time."""
    if not endpoint.is_stream:
        return False, True
    client = HonestClient(endpoint, found, _FIRST_ANSWER, tls)
    with connect(endpoint, timeout=_FIRST_ANSWER, tls=tls) as first:
        kept = False
        try:
            client._exchange(first, 1)
            kept = not found.half_close and client._exchange(first, 2)[0] == "right"
        except BothendsError:
            pass
        kept = kept and not found.until_eof and found.rule != "silent"
        try:
            with connect(endpoint, timeout=_FIRST_ANSWER, tls=tls) as second:
                concurrent = client._exchange(second, 3)[0] == "right"
        except BothendsError:
            concurrent = False
    return kept, concurrent
