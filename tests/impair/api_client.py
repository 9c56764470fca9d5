"""A client of the API for tests in one process with the server."""

from __future__ import annotations

import http.client
import json
from typing import Any

from bothends.impair.api_server import ApiServer
from tests.impair.running import TIMEOUT, RunningProxies


class ApiClient:
    """A client with one persistent connection, as Toxiproxy's client libraries have."""

    def __init__(self, proxies: RunningProxies, server: ApiServer) -> None:
        self.proxies = proxies
        self.server = server
        self.fields = http.client.HTTPMessage()  # of the last response
        self.connection = http.client.HTTPConnection("127.0.0.1", server.endpoint.port, timeout=TIMEOUT)

    def __call__(self, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        self.connection.request(method, path, data, fields)
        response = self.connection.getresponse()
        text = response.read()
        self.fields = response.headers
        is_json = response.headers.get("Content-Type") == "application/json"
        return response.status, json.loads(text) if is_json else text.decode()
