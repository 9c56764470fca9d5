"""The log that the core in C writes: line for line that of the same server whose log is written in Python."""

from __future__ import annotations

import functools
import io
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bothends.endpoints import Address
from bothends.engines.base import Engine
from bothends.engines.epoll import EpollEngine
from bothends.engines.native import NativeEngine
from bothends.events import (
    Closed,
    CloseReason,
    Event,
    FilteredObserver,
    LoggedTraffic,
    Observer,
    Received,
    Sent,
    WithoutMessages,
)
from bothends.log import JsonLog, LineCoalescer, TextLog
from bothends.server import Server
from bothends.services.base import Peer, Service
from bothends.testing.clients import Client
from bothends.testing.services import EchoService
from tests.engines.test_counted import TRAFFIC, Traffic, ask_and_half_close, each_backend, read_nothing
from tests.engines.test_native import wait_for

pytestmark = pytest.mark.skipif(
    NativeEngine.unavailable_reason() is not None, reason=str(NativeEngine.unavailable_reason())
)

HOLD = 60.0  # seconds that a fragment waits for the rest of its line: until something ends it


class Lines(io.StringIO):
    """A stream that keeps each write."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        super().__init__()
        self.writes: list[str] = []
        self._is_terminal = is_terminal

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)

    def isatty(self) -> bool:
        return self._is_terminal


def json_log(stream: Lines, name: str = "") -> tuple[Observer, JsonLog]:
    log = JsonLog(stream, name=name)
    return log, log


def text_log(stream: Lines, name: str = "", *, colour: bool = False) -> tuple[Observer, TextLog]:
    log = TextLog(messages=stream, activity=stream, problems=stream, colour=lambda _stream: colour, name=name)
    return log, log


def coloured_log(stream: Lines, name: str = "") -> tuple[Observer, TextLog]:
    return text_log(stream, name, colour=True)


Form = Callable[[Lines, str], tuple[Observer, Any]]
FORMS: list[Form] = [json_log, text_log, coloured_log]


def logged(log: tuple[Observer, Any]) -> LoggedTraffic:
    """Return the observer of a server that logs everything to one stream."""
    observe, line_log = log
    is_text = isinstance(line_log, TextLog)
    line_format = line_log.line_format(is_one_file=True) if is_text else line_log.line_format()
    assert line_format is not None
    return LoggedTraffic(observe, line_format)


@contextmanager
def serving(
    engine: type[Engine], observe: Observer, service: Service | None = None, url: str = "tcp://127.0.0.1:0"
) -> Iterator[Server]:
    with Server(service or EchoService(), [url], engine=engine, observe=observe) as server:
        yield server


# The ranges of escaping.py that isprintable() accepts.
INVISIBLE = [
    (0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180D), (0x180F, 0x180F), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
]  # fmt: skip


@functools.cache
def messages() -> list[bytes]:
    """Return what must be escaped, is cut, or is not UTF-8: fixed ones, boundaries, and random ones."""
    found = [
        b"plain\n", b"a\tb\r\n", b"one\ntwo\r\n\nfour", b"\n", b"\r", b'"quoted" \\ back\n', b"\\",
        bytes(range(256)), b"padded\0\0", b"\0\0\0", b"one NUL\0", b"x" * 384, b"x" * 385,
        b"x" * 383 + "é".encode(), b"y" * 1024, b"y" * 1025, b"y" * 1023 + "\u20ac\n".encode(),
        b"z" * 1500 + b"\n\0\0\0", b"w\n" * 700,
        b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xe1\x80A\xff\xfe",
        "\U0001f600 \u202e \u00ad \u200b \u3164 \ufe0f \U000e0041 \u0085 \u2028 \ud7ff \ue000\n".encode(),
    ]  # fmt: skip
    # Where printable characters begin and end, and what is invisible although printable.
    numbers = [number for number in range(0x80, 0x110000) if not 0xD800 <= number < 0xE000]
    kinds = [chr(number).isprintable() for number in numbers]
    places = [place for place in range(1, len(kinds)) if kinds[place] != kinds[place - 1]]
    edges = "".join(chr(numbers[place - 1]) + chr(numbers[place]) for place in places)
    for first, last in INVISIBLE:
        edges += "".join(map(chr, (first - 1, first, last, last + 1)))
    found += [edges[start : start + 90].encode() for start in range(0, len(edges), 90)]
    chosen = random.Random(1)
    for _ in range(150):
        alphabet = chosen.choice([b'ab"\\\n', bytes(range(256)), "aé€😀\u202e".encode(), b"\0\r\nx"])
        found.append(bytes(chosen.choices(alphabet, k=chosen.randrange(4, 400))))
    return found


def normalized(text: str) -> str:
    """Return a log without its times and ports."""
    text = re.sub(r'"at":\d+', '"at":0', text)
    text = re.sub(r"@[0-9a-f]{5}\b", "@", text)  # unix(7), autobind
    return re.sub(r'(#|"port":)\d+', r"\g<1>1", text)


@pytest.mark.spread("form", "engine", one_in=2)
@pytest.mark.parametrize("form", FORMS, ids=["json", "text", "coloured"])
@each_backend
def test_messages_are_written_in_c_as_in_python(engine: type[NativeEngine], form: Form) -> None:
    sent = messages()
    stream, expected = Lines(), Lines()
    with serving(engine, logged(form(stream, "a\x1bé"))) as server:
        with Client(server.endpoints[0]) as client:
            for message in sent:
                client.send(message)
                assert client.receive_exactly(len(message)) == message
        wait_for(lambda: "closed" in stream.getvalue())
    observe, _ = form(expected, "a\x1bé")
    peer = Address("inet", "127.0.0.1", 1)
    for message in sent:
        observe(Received(1, peer, message))
        observe(Sent(1, peer, message))
    total = sum(map(len, sent))
    observe(Closed(1, peer, CloseReason.PEER, total, total))
    found = [line for line in normalized(stream.getvalue()).splitlines() if not is_no_message(line)]
    assert found == normalized(expected.getvalue()).splitlines()


def is_no_message(line: str) -> bool:
    words = (" connected", "finished sending", "draining", '"opened"', '"ended"', '"listening"', '"stopped"')
    return any(word in line for word in words)


def log_of(engine: type[Engine], traffic: Traffic, observe: LoggedTraffic, stream: Lines) -> list[object]:
    """Return the log of a server that serves this traffic, without what the kernel decides."""
    with Server(
        traffic.service(), [traffic.url], engine=engine, limits=traffic.limits, observe=observe
    ) as server:
        with Client(server.endpoints[0], rcvbuf=4096) as client:
            traffic.act(client, server)
        wait_for(lambda: '"closed"' in stream.getvalue())
    records: list[dict[str, object]] = []
    for line in normalized(stream.getvalue()).splitlines():
        record = json.loads(line)
        if record["event"] in ("received", "sent") and records and records[-1]["event"] == record["event"]:
            records[-1]["length"] += record["length"]  # the kernel divides a stream as it likes
        else:
            records.append(record)
    if traffic.act is read_nothing:
        for record in records:
            record.pop("sent", None), record.pop("length", None)
    if traffic.act is ask_and_half_close:  # the EOF may come before the kernel has taken the reply
        records.sort(key=lambda record: str(record["event"]))
    return [each for each in records if each["event"] not in ("listening", "stopped", "draining")]


@pytest.mark.spread("traffic", "engine", one_in=2)
@pytest.mark.parametrize("traffic", [each for each in TRAFFIC if each.reason], ids=str)
@each_backend
def test_core_logs_what_events_would_say(engine: type[NativeEngine], traffic: Traffic) -> None:
    logs = []
    for each in (engine, EpollEngine):
        stream = Lines()
        logs.append(log_of(each, traffic, logged(json_log(stream)), stream))
    assert logs[0] == logs[1]


@each_backend
def test_log_of_connections_has_no_messages(engine: type[NativeEngine]) -> None:
    stream = Lines()
    log = JsonLog(stream)
    line_format = log.line_format()
    assert line_format is not None
    with serving(engine, LoggedTraffic(WithoutMessages(log), line_format)) as server:
        with Client(server.endpoints[0]) as client:
            assert client.request(b"hello") == b"hello"
        wait_for(lambda: "closed" in stream.getvalue())
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert [each for each in events if each not in ("listening", "stopped", "draining")] == [
        "opened",
        "closed",
    ]


@pytest.mark.parametrize("url", ["tcp://[::1]:0", "unix:@bothends-native-log"])
@pytest.mark.parametrize("form", FORMS[:2], ids=["json", "text"])
@each_backend
def test_other_addresses_are_written_as_in_python(engine: type[NativeEngine], form: Form, url: str) -> None:
    logs = []
    for each in (engine, EpollEngine):
        stream = Lines()
        with serving(each, logged(form(stream, "")), url=url) as server:
            with Client(server.endpoints[0]) as client:
                assert client.request(b"hello\n") == b"hello\n"
            wait_for(lambda stream=stream: "closed" in stream.getvalue())  # type: ignore[misc]
        logs.append([line for line in normalized(stream.getvalue()).splitlines() if "listening" not in line])
    assert logs[0] == logs[1]


class ReplyToSome(EchoService):
    """Returns what is received; nothing to an empty datagram, and fails for one of two bytes."""

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        if len(datagram) == 2:
            raise ValueError("two bytes")
        return datagram or None


@pytest.mark.parametrize(
    "url", ["udp://127.0.0.1:0", "udp://[::]:0", "unix+dgram:@bothends-native-log-dgram"]
)
@pytest.mark.parametrize("form", FORMS[:2], ids=["json", "text"])
def test_datagrams_are_logged_in_c_as_in_python(form: Form, url: str) -> None:
    # Unanswered, failing, cut ones and ones for several lines; two clients, whose addresses are told apart.
    sent = [b"", b"ab", b"one\ntwo\n", b"x" * 1500, b"\x1b[2J\xff\0\0", b"a"]
    logs = []
    for engine in (NativeEngine, EpollEngine):
        stream = Lines()
        with serving(engine, logged(form(stream, "")), ReplyToSome(), url) as server:
            endpoint = server.endpoints[0]
            for _ in range(2):
                with Client(endpoint) as client:
                    for data in sent:
                        client.send(data)
                        if data and data != b"ab":
                            assert client.receive_message() == data
        lines = normalized(stream.getvalue()).splitlines()
        logs.append([line for line in lines if not is_no_message(line)])
    assert logs[0] == logs[1]
    assert len(logs[0]) >= 2 * (2 * len(sent) - 2 if form is json_log else len(sent) + 2)


def test_datagrams_are_logged_before_the_loop_waits() -> None:
    stream = Lines()
    observe = logged(json_log(stream))
    with (
        serving(NativeEngine, observe, url="udp://127.0.0.1:0") as server,
        Client(server.endpoints[0]) as client,
    ):
        client.send(b"hello")
        assert client.receive_message() == b"hello"
        wait_for(lambda: '"sent"' in stream.getvalue())
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    found = [(each["event"], each["connection"], each["text"]) for each in records if "text" in each]
    assert found == [("received", 0, "hello"), ("sent", 0, "hello")]


class WaitForFirst(EchoService):
    """Returns what is received; the answer to the first datagram waits for `release`."""

    def __init__(self) -> None:
        self.received = threading.Event()
        self.release = threading.Event()

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        self.received.set()
        self.release.wait(10)
        return datagram


def test_each_datagram_of_a_batch_is_logged() -> None:
    stream, service = Lines(), WaitForFirst()
    sent = [f"datagram {number}".encode() for number in range(6)]
    with (
        serving(NativeEngine, logged(json_log(stream)), service, "udp://127.0.0.1:0") as server,
        Client(server.endpoints[0]) as client,
    ):
        client.send(sent[0])
        assert service.received.wait(10)
        for data in sent[1:]:
            client.send(data)
        service.release.set()
        assert [client.receive_message() for _ in sent] == sent
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    for event in ("received", "sent"):
        assert [each["text"].encode() for each in records if each["event"] == event] == sent


def test_datagrams_are_left_out_of_a_log_of_connections() -> None:
    stream = Lines()
    log = JsonLog(stream)
    line_format = log.line_format()
    assert line_format is not None
    observe = LoggedTraffic(WithoutMessages(log), line_format)
    with (
        serving(NativeEngine, observe, url="udp://127.0.0.1:0") as server,
        Client(server.endpoints[0]) as client,
    ):
        client.send(b"hello")
        assert client.receive_message() == b"hello"
    assert '"text"' not in stream.getvalue()


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"h", b"el", b"lo\n", b"world\n"], ["hello", "world"]),
        ([b"first\n", b"a", b"second line\nthird\n", b"x\n"], ["first", "asecond line", "third", "x"]),
        ([b"ab"], ["ab"]),
    ],
)
@each_backend
def test_fragments_of_a_line_are_joined(
    engine: type[NativeEngine], chunks: list[bytes], expected: list[str]
) -> None:
    stream = Lines()
    text = TextLog(messages=stream, activity=stream, problems=stream, colour=lambda _stream: False)
    coalescer = LineCoalescer(text, hold=HOLD)
    line_format = text.line_format(is_one_file=True)
    assert line_format is not None
    with serving(engine, LoggedTraffic(coalescer, coalescer.line_format(line_format))) as server:
        with Client(server.endpoints[0]) as client:
            for chunk in chunks:
                client.send(chunk)
                assert client.receive_exactly(len(chunk)) == chunk
        wait_for(lambda: "closed" in stream.getvalue())
    lines = re.sub(r"127\.0\.0\.1#\d+", "", stream.getvalue()).splitlines()
    sent = sum(map(len, chunks))
    assert lines == [
        " connected",
        *(f": {each}" for each in expected),
        " has finished sending",
        f" closed: the peer closed ({sent} bytes in, {sent} out)",
    ]


@pytest.mark.parametrize("is_terminal", [False, True])
@each_backend
def test_lines_are_written_together_except_to_a_terminal(
    engine: type[NativeEngine], is_terminal: bool
) -> None:
    stream = Lines(is_terminal=is_terminal)
    with serving(engine, logged(text_log(stream))) as server, Client(server.endpoints[0]) as client:
        client.send(b"line\n" * 100)
        assert client.receive_exactly(500) == b"line\n" * 100
        wait_for(lambda: stream.getvalue().count(": line\n") == 100)
        written = [each for each in stream.writes if "line" in each]
    assert len(written) == (100 if is_terminal else 1)


@each_backend
def test_event_of_another_thread_follows_what_was_logged_before(engine: type[NativeEngine]) -> None:
    # More than is collected at once, and an event that is logged in Python while the loop is busy.
    stream = Lines()
    observe = logged(json_log(stream))
    peer = Address("inet", "192.0.2.1", 1)
    with serving(engine, observe) as server:
        with Client(server.endpoints[0]) as client:
            for _ in range(300):
                assert client.request(b"x" * 300) == b"x" * 300
            thread = threading.Thread(target=observe, args=(Received(9, peer, b"of another thread"),))
            thread.start()
            thread.join()
        wait_for(lambda: "closed" in stream.getvalue())
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    place = next(i for i, each in enumerate(records) if each.get("text") == "of another thread")
    assert sum(each["event"] == "received" for each in records[:place]) == 300


def test_observer_says_what_it_excludes() -> None:
    class NothingSent(FilteredObserver):
        EXCLUDED = frozenset({Sent})

    events: list[Event] = []
    log = JsonLog(Lines())
    line_format = log.line_format()
    assert line_format is not None
    found = LoggedTraffic(NothingSent(events.append), line_format).line_format
    assert (found.sent, found.received) == (b"", line_format.received)


def test_hexadecimal_log_is_written_in_python() -> None:
    stream = Lines()
    assert JsonLog(stream, dump=True).line_format() is None
    text = TextLog(messages=stream, activity=stream, problems=stream, colour=lambda _: False, dump=True)
    assert text.line_format() is None
