"""The longest message that a server takes, on each kind of socket that has messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends import message, serve
from bothends.client.blocking import connect
from bothends.engines.base import Limits
from bothends.errors import BothendsError, TimeLimit
from bothends.events import Closed, Dropped, Event, Failed


@message
def echo(text: bytes) -> bytes:
    return text


@pytest.mark.parametrize("engine", ["iterative", "epoll", "asyncio"])
@pytest.mark.parametrize("kind", ["tcp", "unix+seqpacket", "udp"])
def test_a_message_at_the_limit_passes_and_one_over_it_does_not(
    kind: str, engine: str, tmp_path: Path
) -> None:
    told: list[Event] = []
    where = f"{kind}://127.0.0.1:0" if kind in ("tcp", "udp") else f"{kind}://{tmp_path}/a"
    with serve(echo, where, engine=engine, limits=Limits(message=100), observe=told.append) as server:
        with connect(server.endpoints[0], timeout=5) as connection:
            assert connection.request(b"x" * 100) == b"x" * 100
        with connect(server.endpoints[0], timeout=0.3) as connection:
            if kind == "udp":
                with pytest.raises(TimeLimit):
                    connection.request(b"x" * 101)
            else:
                connection.send(b"x" * 101 + b"\n" * (kind == "tcp"))
                try:
                    assert connection.receive() == b""
                except BothendsError as error:
                    pytest.fail(f"not closed in good order: {error}")
    kinds = (Dropped,) if kind == "udp" else (Failed, Closed)
    assert [type(event) for event in told if isinstance(event, kinds)][-len(kinds) :] == list(kinds)
