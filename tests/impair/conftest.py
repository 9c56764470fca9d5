"""Fixtures of the tests of impair."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bothends.endpoints import Endpoint
from bothends.impair.api import Api
from bothends.impair.api_server import ApiServer
from tests.impair.api_client import ApiClient
from tests.impair.running import RunningProxies


@pytest.fixture
def api_client() -> Iterator[ApiClient]:
    """Start proxies and their API. Yields a client."""
    with RunningProxies() as running:
        server = running.run_on_loop(
            lambda: ApiServer(
                running.loop,
                Api(running.proxies, "0"),
                Endpoint.parse("tcp://127.0.0.1:0"),
            )
        )
        client = ApiClient(running, server)
        yield client
        client.connection.close()
        running.run_on_loop(server.close)
