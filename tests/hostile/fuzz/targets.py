"""The fuzz targets: everything that reads text or bytes of others, and what must hold for any input."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import socket
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

from bothends.bench.http_response import HttpResponseReader, MalformedResponse, ResponseHead
from bothends.check import contract
from bothends.check.batch import build_recipes
from bothends.cli.main import run as run_bothends
from bothends.configuration import parse as parse_configuration
from bothends.endpoints import SCHEMES, Address, Endpoint, endpoints_from_args
from bothends.errors import (
    ConfigurationError,
    EndpointError,
    MessageTooLong,
    ServiceError,
    SystemCallFailed,
    UnknownName,
)
from bothends.escaping import escape_controls
from bothends.framing import Framing, LengthPrefixed, Lines
from bothends.http1 import BadRequest, HttpRequest, RequestParser
from bothends.impair.api import Api
from bothends.impair.proxies import ProxyCollection
from bothends.impair.recording import Replay
from bothends.impair.scenario import read_scenario
from bothends.layers import ProxyLayer
from bothends.layers.proxy_protocol import V2_MAX_LENGTH, ProxyHeaderError, encode_header, parse_header
from bothends.osutil.event_loop import EventLoop
from bothends.services.base import Conversation, Peer, Push, discard_push
from bothends.services.http_pages import HttpPage, HttpPages
from bothends.sockets import takeover
from bothends.toxics.base import Medium, Signal
from bothends.toxics.pipeline import Item, Pipeline
from bothends.trace.capture.calls import CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.strace import StraceParser
from bothends.trace.model import Call, Trace
from bothends.trace.rendering import explain
from tests.hostile.fuzz.blocks import pack
from tests.hostile.fuzz.fuzzer import Target
from tests.hostile.fuzz.mutators import mutate_json, mutate_json_lines

LOCAL: Final = Address("inet", "127.0.0.1", 12000)
PEER: Final = Peer(Address("inet", "127.0.0.1", 5000), LOCAL, connection=1)


def random_of(data: bytes) -> Random:
    """Return a generator that depends on the input only, so that a saved input fails again."""
    return Random(zlib.crc32(data))


def text_of(data: bytes) -> str:
    """Decode an input as the arguments of a program are."""
    return data.decode("utf-8", "surrogateescape")


def chunks_of(data: bytes) -> Iterator[bytes]:
    """Cut an input into chunks of random sizes."""
    generator, at = random_of(data), 0
    most = generator.choice((1, 3, 20, 1000))
    while at < len(data):
        size = generator.randint(1, most)
        yield data[at : at + size]
        at += size


@functools.cache
def folder() -> Path:
    """Return a folder for files, which is removed at the end of the process."""
    made = tempfile.TemporaryDirectory(prefix="bothends-fuzz-")
    folder.made = made  # type: ignore[attr-defined]  # keeps it
    return Path(made.name)


# Endpoints ---------------------------------------------------------------------------------------


def endpoints(data: bytes) -> None:
    endpoint = Endpoint.parse(text_of(data))
    url = str(endpoint)
    assert Endpoint.parse(url) == endpoint
    assert str(Endpoint.parse(url)) == url
    assert escape_controls(url) == url, "a URL that cannot be shown unchanged"


def arguments(data: bytes) -> None:
    scheme, *words = text_of(data).split("\n")
    found = endpoints_from_args(words, scheme if scheme in SCHEMES else "tcp")
    assert len(found) <= len(words)


# Framing -----------------------------------------------------------------------------------------

FRAMINGS: Final[list[Framing]] = [
    Lines(8),
    Lines(64),
    LengthPrefixed(1, 20),
    LengthPrefixed(2, 40),
    LengthPrefixed(4),
]


def framing(data: bytes) -> None:
    """The first byte selects the framing; any chunking of the others gives the same messages."""
    rule = FRAMINGS[(data[:1] or b"\0")[0] % len(FRAMINGS)]
    stream = data[1:]
    assert decode(rule, chunks_of(stream)) == decode(rule, iter([stream]))
    messages, _ = decode(rule, iter([stream]))
    if isinstance(rule, Lines) and any(each.endswith(b"\r") for each in messages):
        return  # the CR would be a part of the end of the line
    assert decode(rule, iter(map(rule.encode, messages))) == (messages, False)


def decode(rule: Framing, chunks: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """Return the messages of a stream, and whether one was too long."""
    decoder = rule.decoder()
    messages: list[bytes] = []
    try:
        for chunk in chunks:
            messages += decoder.feed(chunk)
        return messages + decoder.end(), False
    except MessageTooLong as error:
        return messages + list(error.completed_messages), True


# The PROXY protocol ------------------------------------------------------------------------------


class Recorder(Conversation):
    """Records the bytes after a header."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.received = b""

    def receive(self, data: bytes) -> bytes:
        self.received += data
        return b""

    def end(self) -> bytes:
        return b""


def proxy(data: bytes) -> None:
    whole, pieces = read_header(iter([data])), read_header(chunks_of(data))
    assert whole == pieces
    found = parse_header(data)
    if found is None:
        assert len(data) < 16 + V2_MAX_LENGTH
        return
    header, size = found
    for end in {0, size // 2, size - 1}:
        assert parse_header(data[:end]) is None, "a header is complete too early"
    assert "\n" not in escape_controls(header.description).replace("\n", "")
    if header.source is not None and header.destination is not None and header.source.family != "unix":
        for version in (1, 2):
            again = parse_header(encode_header(version, header.source, header.destination))
            assert again is not None
            assert (again[0].source, again[0].destination) == (header.source, header.destination)


def read_header(chunks: Iterator[bytes]) -> tuple[object, ...]:
    """Return what a connection makes of a header in chunks: the client, the bytes after it, the failure."""
    made: list[Recorder] = []

    def open_inner(peer: Peer, _: Push) -> Conversation:
        made.append(Recorder(peer))
        return made[-1]

    conversation = ProxyLayer().wrap(open_inner)(PEER, discard_push)
    conversation.start()
    for chunk in chunks:
        if conversation.done:
            break
        conversation.receive(chunk)
    inner = made[0] if made else None
    # The reason quotes the beginning, which depends on the chunks.
    return conversation.failure is None, inner and inner.peer, inner and inner.received


# Traces ------------------------------------------------------------------------------------------


def strace(data: bytes) -> None:
    trace, parser = Trace(), StraceParser()
    reader = CallDecoder(trace, SocketRegistry(), itertools.count(1), "program")
    lines = (line for chunk in chunks_of(data) for line in parser.feed(chunk))
    points = [*reader.decode(lines), *reader.decode(parser.feed_eof()), *reader.finish()]
    for point in points:
        if isinstance(point.event, Call):
            explain.explain_call(point.event, trace)
            explain.named_arguments(point.event)


def run(*words: str) -> str:
    """Run a command line in this process. Returns its output: escaped, and one line of error if it fails."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = run_bothends(words)
    shown = output.getvalue() + errors.getvalue()
    assert status in (0, 1, 2), f"exit status {status}: {errors.getvalue()}"
    assert "internal error" not in errors.getvalue(), errors.getvalue()
    assert status != 2 or errors.getvalue().count("\n") == 1, errors.getvalue()
    assert escape_controls(shown) == shown, "a character that is not escaped"
    return output.getvalue()


PICTURES: Final = ("--svg", "--html", "--pcapng")
OUTPUTS: Final = (*PICTURES, "--json", "--explain", "--all-calls")


def blocks(data: bytes) -> None:
    """Blocks of a trace file, of points or of a recording, as lines of JSON: `blocks.py`."""
    traces(pack(data))


def traces(data: bytes) -> None:
    file, picture = folder() / "trace", folder() / "picture"
    file.write_bytes(data)
    option = random_of(data).choice(OUTPUTS)
    run("trace", "--open", str(file), option, *([str(picture)] if option in PICTURES else []))
    if picture.exists():
        if option != "--pcapng":
            text = picture.read_text(encoding="utf-8")
            assert escape_controls(text) == text
        picture.unlink()


# Results of bench --------------------------------------------------------------------------------


def results(data: bytes) -> None:
    file = folder() / "result"
    file.write_bytes(data)
    if random_of(data).random() < 0.5:
        output = run("bench", "compare", str(file), str(file), "--json")
        assert "NaN" not in output
        assert "Infinity" not in output
    else:
        run("bench", "compare", str(file), str(file))


# Files in TOML, and recordings -------------------------------------------------------------------


def contracts(data: bytes) -> None:
    made = contract.parse(data.decode("utf-8", "replace"), "own.toml", "own", folder())
    if made.answer.service:
        for message in (b"", b"hello", b"\xff" * 100):
            contract.make_oracle(made).reply(made.encode(message))


def manifests(data: bytes) -> None:
    path = folder() / "check.toml"
    path.write_bytes(data)
    build_recipes.find_recipe(folder(), "server")


def configurations(data: bytes) -> None:
    for options in parse_configuration(data.decode("utf-8", "replace"), "own.toml", folder()):
        assert options.title


def scenarios(data: bytes, suffix: str = ".toml") -> None:
    path = folder() / f"scenario{suffix}"
    path.write_bytes(data)
    read_scenario(path)


def recordings(data: bytes) -> None:
    path = folder() / "recording"
    path.write_bytes(data)
    replay = Replay(path)
    for name in replay.proxies:
        for medium in Medium:
            pipeline = Pipeline(medium, replay.stages(name, 1, "upstream", medium))
            end: list[Item] = [] if medium in (Medium.DATAGRAMS, Medium.PACKETS) else [Signal.END]
            sent = list(pipeline.begin(0.0))
            for number, item in enumerate([b"hello", b"x" * 20, b"y", *end]):
                sent += pipeline.put(number / 10, item)
            for _ in range(100):
                if pipeline.due < 1e9:
                    sent += pipeline.advance(pipeline.due)
            assert all(isinstance(each, bytes | Signal) for each in sent)


# HTTP --------------------------------------------------------------------------------------------


def requests_of(chunks: Iterator[bytes]) -> tuple[list[HttpRequest], str]:
    """Return the requests in a stream, and the error at its end."""
    parser, found = RequestParser(), list[HttpRequest]()
    try:
        for chunk in chunks:
            found += parser.feed(chunk)
    except BadRequest as bad:
        return found, f"{bad.status} {bad.reason}"
    return found, ""


def http(data: bytes) -> None:
    found, error = requests_of(iter([data]))
    pieces = requests_of(chunks_of(data))
    # A stream that is cut off or malformed within a body may be refused earlier, never read differently.
    assert pieces == (found, error)


def responses_of(chunks: Iterator[bytes]) -> tuple[list[tuple[ResponseHead, bytes]], str]:
    """Return the responses in a stream with their bodies, and the error at its end."""
    body, found = bytearray(), list[tuple[ResponseHead, bytes]]()
    reader = HttpResponseReader(no_body=False, on_body=body.extend)
    try:
        for chunk in chunks:
            while reader.feed(chunk):
                found.append((reader.head, bytes(body)))
                body.clear()
                chunk = b""
    except MalformedResponse as malformed:
        return found, malformed.reason
    return found, ""


def responses(data: bytes) -> None:
    """The responses of HTTP that `bench` reads, whatever the chunking."""
    assert responses_of(chunks_of(data)) == responses_of(iter([data]))


def pages(data: bytes) -> None:
    """The pages of `serve --metrics`."""
    service = HttpPages({"/metrics": lambda: HttpPage(b"x 1\n"), "/health": lambda: HttpPage(b"ok\n")})
    conversation, answer = service.open(PEER, discard_push), b""
    for chunk in chunks_of(data):
        if not conversation.done:
            answer += conversation.receive(chunk)
    answer += conversation.end() if not conversation.done else b""
    assert conversation.failure is None
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer.startswith(b"HTTP/1.1 500 ")
    check_response(answer)


def check_response(answer: bytes) -> None:
    """Check that a response has one head, whose length is that of the body."""
    if not answer:
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 "), first
    lengths = [each for each in fields if each.startswith("Content-Length:")]
    assert b"\0" not in body
    assert not body or lengths == [f"Content-Length: {len(body)}"]


def api(data: bytes) -> None:
    """The API of `impair`. Each request is handled on proxies that listen, but names are not looked up."""
    loop = EventLoop()
    proxies = ProxyCollection(loop)
    server = Api(proxies, "0")
    look_up: Callable[..., object] = socket.getaddrinfo

    def numeric(*words: object, flags: int = 0, **named: object) -> object:
        return look_up(*words, flags=flags | socket.AI_NUMERICHOST, **named)

    try:
        with mock.patch.object(socket, "getaddrinfo", numeric):
            for request in requests_of(iter([data]))[0]:
                check_response(server.handle(request).encode(keep_alive=False))
            for path in ("/metrics", "/proxies"):
                request = HttpRequest("GET", path, "", {}, b"", keep_alive=True)
                response = server.handle(request)
                assert response.status == 200
                text = response.body.decode()
                assert escape_controls(text) == text
    finally:
        proxies.close()
        loop.close()


# Takeover ----------------------------------------------------------------------------------------


class Offerer:
    """Listens at a path, and sends each connection the next message, with descriptors."""

    def __init__(self) -> None:
        self.path = folder() / "takeover"
        self.message = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen()
        tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        unbound, self._pipe = socket.socket(), os.pipe()
        self._sockets = [tcp, udp, unbound]
        self.ports = [str(each.getsockname()[1]).encode() for each in (tcp, udp)]
        self._descriptors = [*(each.fileno() for each in self._sockets), self._pipe[0]]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                kinds, _, text = self.message.partition(b"\n")
                for name, port in zip((b"TCP", b"UDP"), self.ports, strict=True):
                    text = text.replace(name, port)
                fds = [self._descriptors[kind % len(self._descriptors)] for kind in kinds[:10]]
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                socket.send_fds(connection, [text or b" "], fds)


offerer: Callable[[], Offerer] = functools.cache(Offerer)


def handover(data: bytes) -> None:
    """The first line selects descriptors, the others are the message; TCP and UDP in it are their ports."""
    offer = offerer()
    offer.message = data
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    try:
        taken = takeover.request_listeners(str(offer.path))
        assert taken is not None
        taken.close()
    finally:
        # The offering thread may not have closed its own end yet.
        assert len(os.listdir("/proc/self/fd")) <= before + 1, "a descriptor is left"  # noqa: PTH208


INVALID_FILE: Final = (ConfigurationError,)

TARGETS: Final = [
    Target("endpoints", endpoints, (EndpointError, UnknownName), max_size=400),
    Target("arguments", arguments, (EndpointError, UnknownName), max_size=400),
    Target("framing", framing, max_size=400),
    Target("proxy", proxy, (ProxyHeaderError,), max_size=20 << 10),
    Target("strace", strace, runs=20),
    Target("traces", traces, mutate=mutate_json_lines, max_size=256 << 10, runs=8),
    Target("blocks", blocks, mutate=mutate_json_lines, max_size=256 << 10, runs=12),
    Target("results", results, mutate=mutate_json, max_size=256 << 10, runs=30),
    Target("contracts", contracts, (*INVALID_FILE, ServiceError, UnknownName)),
    Target("manifests", manifests, INVALID_FILE),
    Target("configurations", configurations, INVALID_FILE),
    Target("scenarios", scenarios, INVALID_FILE),
    Target("toxiproxy", functools.partial(scenarios, suffix=".json"), INVALID_FILE, mutate=mutate_json),
    Target("recordings", recordings, INVALID_FILE, mutate=mutate_json_lines),
    Target("http", http),
    Target("responses", responses),
    Target("pages", pages),
    Target("api", api),
    Target("takeover", handover, (SystemCallFailed,)),
]
