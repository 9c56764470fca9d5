"""Send raw requests to a server over HTTP, and run the API of impair in this process."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bothends.endpoints import Endpoint
from bothends.impair.api import Api, ApiAccess
from bothends.impair.api_server import ApiServer
from tests.impair.running import TIMEOUT, RunningProxies


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Send a request on a connection of its own, read to the end, and return status and body."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def call(port: int, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, Any]:
    """Send one request to the API and return the status and the JSON value of the response."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Content-Length": str(len(data))}
    given |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    status, response = exchange(port, "\r\n".join(lines).encode("latin-1") + data)
    return status, json.loads(response) if response[:1] in (b"{", b"[") else response.decode()


@dataclass(frozen=True, slots=True)
class RunningApi:
    """The API in this process."""

    proxies: RunningProxies
    server: ApiServer

    @property
    def port(self) -> int:
        """The port of the API."""
        port = self.server.endpoint.port
        assert port is not None
        return port


@contextlib.contextmanager
def running_api(access: ApiAccess | None = None) -> Iterator[RunningApi]:
    """Run the API at a port of loopback, with no proxies."""
    with RunningProxies() as running:
        endpoint = Endpoint.parse("tcp://127.0.0.1:0")
        server = running.run_on_loop(
            lambda: ApiServer(running.loop, Api(running.proxies, "0", access), endpoint)
        )
        try:
            yield RunningApi(running, server)
        finally:
            running.run_on_loop(server.close)
