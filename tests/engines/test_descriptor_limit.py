"""At the descriptor limit, accept() is tried again as soon as the engine has closed a connection."""

from __future__ import annotations

import contextlib

import pytest

from bothends.testing.clients import TIMEOUT, Client
from bothends.testing.harness import Harness
from bothends.testing.services import EchoService
from tests.engines import slow_pause_engines

ENGINES = [name for name in vars(slow_pause_engines) if name.startswith("SlowPause")]


@pytest.mark.parametrize("name", ENGINES)
def test_accept_is_tried_again_when_a_descriptor_is_free(name: str) -> None:
    if (reason := getattr(slow_pause_engines, name).unavailable_reason()) is not None:
        pytest.skip(str(reason))
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(
            Harness(
                f"{slow_pause_engines.__name__}:{name}",
                EchoService,
                ["tcp://127.0.0.1:0"],
                observe=False,
                start_paused=True,
            )
        )
        running.limit_descriptors(8)  # of which the engine needs some itself
        running.resume()
        clients = [stack.enter_context(Client(running.endpoints[0])) for _ in range(12)]
        for client in clients:
            client.send(b"hello")
        assert clients[0].is_readable(TIMEOUT)
        waiting = [client for client in clients if not client.is_readable(0.1)]
        assert len(waiting) >= 4
        for client in clients:
            # The last ones: io_uring takes the limit of the time at which the accept was submitted.
            assert client in waiting[-2:] or client.is_readable(TIMEOUT)
            client.close()
