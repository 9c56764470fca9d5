"""TLS and the PROXY header on every engine, over real sockets."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bothends.endpoints import Address
from bothends.engines import registry
from bothends.engines.base import Engine, Limits
from bothends.errors import UnknownName
from bothends.events import Cause, Closed, Ended, Established, Failed, Opened, Received
from bothends.layers import encode
from bothends.testing.harness import Harness
from bothends.testing.reports import ServiceMaker
from tests.layers import services
from tests.layers.keys import Keys
from tests.layers.remote import PATIENCE, Remote, dial, rest_of

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def here() -> list[str]:
    """The engines that can run on this machine."""
    found = []
    for name in registry.names():
        try:
            engine = registry.load(name)
        except UnknownName:
            continue
        if engine.missing() is None:
            found.append(name)
    return found


@pytest.fixture(params=here())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def kind(engine: str) -> type[Engine]:
    return registry.load(engine)


@contextmanager
def serving(engine: str, service: ServiceMaker, limits: Limits | None = None) -> Iterator[Harness]:
    """It ends well when it is told to, whatever was done to it."""
    limits = limits or Limits(linger=0.5)
    with Harness(engine, service, ["tcp://127.0.0.1:0"], limits) as running:
        yield running
        running.abort()
        outcome = running.wait_exit()
        assert outcome.status == 0, outcome.printed


def secret(keys: Keys) -> ServiceMaker:
    return functools.partial(services.secret, str(keys.server))


@pytest.mark.parametrize("most", [TLS12, TLS13])
def test_a_conversation(engine: str, keys: Keys, most: ssl.TLSVersion) -> None:
    with serving(engine, secret(keys)) as running:
        with Remote(running.endpoints[0], keys.client_side(most=most)) as client:
            client.say(b"hello")
            assert client.hear(5) == b"hello"
            established = running.wait_event(Established)
            version = "TLS 1.2" if most is TLS12 else "TLS 1.3"
            assert established.agreed == f"{version}, SNI localhost"
            assert running.wait_event(Received).data == b"hello"
            client.finish()
            client.wait_until(lambda: client.end.ended)
        closed = running.wait_event(Closed)
        assert closed.sent > 5
        if most is TLS13:
            assert client.heard[5:] == hashlib.sha256(b"hello").digest()
            assert running.seen(Ended)
        else:
            # TLS 1.2 cannot half-close: the last word is left unsaid, and that is told.
            assert client.heard == b"hello"
            assert "left unsaid" in str(running.wait_event(Failed).error)


def test_a_megabyte_both_ways_at_once(engine: str, keys: Keys) -> None:
    data = random.Random(7).randbytes(1 << 20)
    with (
        serving(engine, secret(keys)) as running,
        Remote(running.endpoints[0], keys.client_side()) as client,
    ):
        client.say(data)
        client.finish()
        client.wait_until(lambda: client.end.ended)
        assert client.heard == data + hashlib.sha256(data).digest()
        running.wait_event(Closed, lambda event: event.cause in (Cause.PEER, Cause.SERVICE))


def test_plain_text_is_told_apart_and_closed_cleanly(engine: str, keys: Keys) -> None:
    with serving(engine, secret(keys)) as running:
        with dial(running.endpoints[0]) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            assert rest_of(client) == b""
        failed = running.wait_event(Failed)
        assert 'not TLS: it began with "GET / HTTP/1.0' in str(failed.error)
        assert running.wait_event(Closed).cause is Cause.BROKEN


def test_a_connection_that_is_cut_is_told_from_one_that_ends(engine: str, keys: Keys) -> None:
    with serving(engine, secret(keys)) as running:
        with Remote(running.endpoints[0], keys.client_side()) as client:
            client.say(b"half")
            client.hear(4)
            client.socket.shutdown(socket.SHUT_WR)
            client.wait_until(lambda: client.end.ended)
        assert "without close_notify" in str(running.wait_event(Failed).error)
        running.wait_event(Closed)
        assert not running.seen(Failed, lambda event: "close_notify" not in str(event.error))


def test_a_handshake_that_never_ends_is_cut_while_others_are_served(engine: str, keys: Keys) -> None:
    limits = Limits(handshake=1.0, linger=0.5)
    with serving(engine, secret(keys), limits) as running, dial(running.endpoints[0]) as stalled:
        stalled.sendall(b"\x16\x03\x01")
        running.wait_event(Opened)
        if kind(engine).concurrent:
            with Remote(running.endpoints[0], keys.client_side()) as client:
                client.say(b"x")
                assert client.hear(1) == b"x"
                assert not running.seen(Closed)
        assert rest_of(stalled) == b""
        cut = running.wait_event(Closed, lambda event: event.cause is Cause.HANDSHAKE)
        assert cut.received == 3
        if not kind(engine).concurrent:
            with Remote(running.endpoints[0], keys.client_side()) as client:
                client.say(b"x")
                assert client.hear(1) == b"x"


def test_a_handshake_in_drops_has_no_more_time(engine: str, keys: Keys) -> None:
    with serving(engine, secret(keys), Limits(handshake=0.7, linger=0.2)) as running:
        with dial(running.endpoints[0]) as client:
            client.settimeout(0.1)
            until = time.monotonic() + PATIENCE
            drops, hung_up = iter(b"\x16\x03\x01\x40\x00" + bytes(1000)), False
            while not hung_up:
                assert time.monotonic() < until
                client.send(bytes([next(drops)]))
                with contextlib.suppress(TimeoutError):
                    hung_up = client.recv(1) == b""
        assert running.wait_event(Closed).cause is Cause.HANDSHAKE


def test_a_hundred_stalled_handshakes_hold_up_nobody(engine: str, keys: Keys) -> None:
    if not kind(engine).concurrent or engine in ("prefork", "pool"):
        pytest.skip("it serves a fixed number at once, and the handshake limit frees them")
    with ExitStack() as stack:
        running = stack.enter_context(serving(engine, secret(keys), Limits(handshake=30, linger=0.5)))
        for _ in range(100):
            stack.enter_context(dial(running.endpoints[0])).sendall(b"\x16\x03\x01\x02\x00\x01")
        with Remote(running.endpoints[0], keys.client_side()) as client:
            client.say(b"x")
            assert client.hear(1) == b"x"
        running.wait_for(lambda: len(running.seen(Opened)) == 101 and len(running.seen(Established)) == 1)


def test_a_drained_client_is_told_in_order(engine: str, keys: Keys) -> None:
    with (
        serving(engine, secret(keys)) as running,
        Remote(running.endpoints[0], keys.client_side()) as client,
    ):
        client.say(b"x")
        client.hear(1)
        running.drain()
        client.wait_until(lambda: client.end.ended)
        assert client.heard == b"x" + hashlib.sha256(b"x").digest()
        client.socket.close()
        assert running.wait_event(Closed).cause is Cause.DRAINED
        assert not running.seen(Failed)


def test_posts_reach_everyone(engine: str, keys: Keys) -> None:
    if not kind(engine).posts:
        pytest.skip(kind(engine).why_not["posts"])
    room = functools.partial(services.secret_room, str(keys.server))
    context = keys.client_side()
    with ExitStack() as stack:
        running = stack.enter_context(serving(engine, room))
        members = [stack.enter_context(Remote(running.endpoints[0], context)) for _ in range(4)]
        for member in members:
            member.hear(2)
        for turn in range(20):
            for number, member in enumerate(members):
                member.say(b"%d" % number * 1000 + b"%02d" % turn)
        for member in members:
            member.deliver()
        total = 2 + 4 * 20 * 1002
        for member in members:
            heard = member.hear(total)
            assert len(heard) == total
            for number in range(4):
                assert heard.count(b"%d" % number * 1000) == 20
        assert not running.seen(Failed)


@pytest.mark.parametrize("version", [1, 2])
def test_behind_a_proxy(engine: str, keys: Keys, version: int) -> None:
    service = functools.partial(services.proxied, str(keys.server))
    far = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))
    with serving(engine, service) as running:
        with Remote(running.endpoints[0], keys.client_side(), encode(version, *far)) as client:
            client.wait_until(lambda: client.end.ended)
            ours = Address("inet", *client.socket.getsockname())
        assert client.heard == b"2001:db8::9#56324 at 2001:db8::1#443"
        established = running.wait_event(Established)
        assert established.agreed == f"PROXY v{version}, TLS 1.3, SNI localhost"
        assert (established.peer, established.was) == (far[0], ours)
        assert running.wait_event(Closed).peer == far[0]


def test_who_has_no_header_gets_nothing_but_a_clean_close(engine: str, keys: Keys) -> None:
    service = functools.partial(services.proxied, str(keys.server))
    with serving(engine, service) as running:
        with dial(running.endpoints[0]) as client:
            client.sendall(b"\x16\x03\x01\x02\x00")
            client.shutdown(socket.SHUT_WR)
            assert rest_of(client) == b""
        assert "no PROXY header" in str(running.wait_event(Failed).error)
        with dial(running.endpoints[0]) as client:
            client.settimeout(PATIENCE)
            client.shutdown(socket.SHUT_WR)
            assert rest_of(client) == b""
        running.wait_event(Closed, lambda event: event.connection == 2 or event.received == 0)
        assert len(running.seen(Failed)) == 1
