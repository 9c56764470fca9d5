"""A peer that goes on sending and does not read the last answer is idle: what it sends is discarded."""

from __future__ import annotations

import functools
import time

import pytest

from bothends.engines import registry
from bothends.engines.base import Limits
from bothends.testing.clients import TIMEOUT, Client
from bothends.testing.harness import Harness
from bothends.testing.services import LargeReply

SMALL = 16 * 1024  # bytes of a socket's buffer


@pytest.mark.parametrize("name", ["select", "poll", "epoll", "asyncio", "uvloop", "native"])
def test_discarded_input_does_not_prolong_the_connection(name: str) -> None:
    if (reason := registry.load(name).unavailable_reason()) is not None:
        pytest.skip(str(reason))
    service = functools.partial(LargeReply, 8_000_000, done=True)
    url = f"tcp://127.0.0.1:0?sndbuf={SMALL}"
    with (
        Harness(name, service, [url], Limits(idle=0.5), observe=False) as running,
        Client(running.endpoints[0], rcvbuf=SMALL) as client,
    ):
        client.send(b"go")
        assert client.is_readable(TIMEOUT)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for(client, TIMEOUT / 3)


def send_for(client: Client, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        client.send(b"more")
        client.is_hung_up(0.05)
