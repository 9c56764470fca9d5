"""Toxiproxy's Python client and the requests of Toxiproxy's README (by curl), against `bothends impair`.

The README lists the endpoints and fields, and walks through an example with Redis. These tests send the same
requests.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.impair.running import TIMEOUT, echo, tcp_server
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running
from tests.tools import find_tool, needs_tool


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Start `bothends impair`. Yields HOST:PORT of its API."""
    with Running([*BOTHENDS, "impair", "--api", "tcp://127.0.0.1:0"]) as impair:
        yield impair.error_line(rb"  API: http://(127\.0\.0\.1:\d+)")[1].decode()
        assert impair.stop() == 0


@pytest.fixture(scope="module")
def redis() -> Iterator[int]:
    """Start an echo server. Yields its port."""
    with tcp_server(echo) as server:
        assert server.port is not None
        yield server.port


def request(port: int, data: bytes = b"GET omg\n") -> tuple[bytes, float]:
    """Send a request to a port. Returns the response, and the time it took in seconds."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        started = time.monotonic()
        connection.sendall(data)
        return connection.recv(100), time.monotonic() - started


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the listener closed while the connection was in its accept queue
        pass
    return False


@dataclass
class Curl:
    """Sends API requests with curl. A call returns the status and the decoded body."""

    base: str

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        command = [str(find_tool("curl")), "-s", "-X", method, "-w", "\n%{http_code} %{content_type}"]
        if body is not None:  # curl -d sends the Content-Type of a form
            command += ["-d", json.dumps(body)]
        result = subprocess.run(
            [*command, f"http://{self.base}{path}"],
            capture_output=True,
            check=True,
            text=True,
            timeout=TIMEOUT,
        )
        text, _, trailer = result.stdout.rpartition("\n")
        status, _, content_type = trailer.partition(" ")
        return int(status), json.loads(text) if content_type == "application/json" and text else text


@needs_tool("curl")
def test_toxiproxy_readme_endpoints_with_curl(api: str, redis: int) -> None:
    curl, upstream = Curl(api), f"localhost:{redis}"
    status, version = curl("GET", "/version")
    assert (status, json.loads(version)["version"][:2]) == (200, "2.")
    assert curl("GET", "/proxies") == (200, {})

    # toxiproxy-cli create -l localhost:26379 -u localhost:6379 redis; port 0 lets the kernel choose
    status, created = curl(
        "POST", "/proxies", {"name": "redis", "listen": "localhost:0", "upstream": upstream}
    )
    port = int(created["listen"].rpartition(":")[2])
    shown = {
        "name": "redis",
        "listen": f"127.0.0.1:{port}",
        "upstream": upstream,
        "enabled": True,
        "toxics": [],
    }
    assert (status, created) == (201, shown)
    assert port > 0
    assert request(port, b"SET omg pandas\n")[0] == b"SET omg pandas\n"
    assert curl("GET", "/proxies") == (200, {"redis": shown})
    assert curl("GET", "/proxies/redis") == (200, shown)

    # toxiproxy-cli toxic add -t latency -a latency=1000 redis
    status, toxic = curl(
        "POST", "/proxies/redis/toxics", {"type": "latency", "attributes": {"latency": 1000}}
    )
    assert (status, toxic) == (
        200,
        {
            "name": "latency_downstream",
            "type": "latency",
            "stream": "downstream",
            "toxicity": 1,
            "attributes": {"latency": 1000, "jitter": 0},
        },
    )
    assert request(port)[1] >= 1
    assert curl("GET", "/proxies/redis/toxics") == (200, [toxic])
    assert curl("GET", "/proxies/redis/toxics/latency_downstream") == (200, toxic)
    changed = toxic | {"attributes": {"latency": 100, "jitter": 0}}
    path = "/proxies/redis/toxics/latency_downstream"
    assert curl("POST", path, {"attributes": {"latency": 100}}) == (200, changed)
    assert curl("GET", "/proxies/redis")[1]["toxics"] == [changed]

    # toxiproxy-cli toxic remove -n latency_downstream redis
    assert curl("DELETE", path) == (204, "")
    assert curl("GET", "/proxies/redis/toxics") == (200, [])

    # down: the proxy's `enabled`; reset: enable all proxies, remove all toxics
    assert curl("POST", "/proxies/redis", {"enabled": False}) == (200, shown | {"enabled": False})
    assert is_refused(port)
    curl(
        "POST",
        "/proxies/redis/toxics",
        {"type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}},
    )
    assert curl("POST", "/reset") == (204, "")
    assert curl("GET", "/proxies/redis") == (200, shown)
    assert request(port)[0] == b"GET omg\n"

    # config/toxiproxy.json, which may be populated repeatedly
    web = {
        "name": "web_dev_frontend_1",
        "listen": "[::]:0",
        "upstream": "webapp.domain:8080",
        "enabled": False,
    }
    status, populated = curl("POST", "/populate", [shown, web])
    assert status == 201
    assert [each["name"] for each in populated["proxies"]] == ["redis", "web_dev_frontend_1"]
    assert curl("POST", "/populate", [shown])[0] == 201
    assert set(curl("GET", "/proxies")[1]) == {"redis", "web_dev_frontend_1"}
    assert request(port)[0] == b"GET omg\n"

    # METRICS.md: both counters, with these labels
    metrics = curl("GET", "/metrics")[1]
    for name in ("toxiproxy_proxy_received_bytes_total", "toxiproxy_proxy_sent_bytes_total"):
        assert f"# TYPE {name} counter" in metrics
    labels = f'direction="upstream",listener="127.0.0.1:{port}",proxy="redis",upstream="{upstream}"'
    assert f"toxiproxy_proxy_received_bytes_total{{{labels}}}" in metrics

    # toxiproxy-cli delete redis
    assert curl("DELETE", "/proxies/redis") == (204, "")
    assert is_refused(port)
    assert curl("GET", "/proxies/redis") == (404, {"error": "proxy not found", "status": 404})
    assert curl("DELETE", "/proxies/web_dev_frontend_1")[0] == 204


# Each toxic of the README, its attributes, and the response that arrives.
TOXICS = {
    "latency": ({"latency": 50, "jitter": 10}, b"hello"),
    "bandwidth": ({"rate": 1000}, b"hello"),
    "slow_close": ({"delay": 50}, b"hello"),
    "timeout": ({"timeout": 50}, b""),
    "slicer": ({"average_size": 2, "size_variation": 1, "delay": 10}, b"hello"),
    "limit_data": ({"bytes": 2}, b"he"),
}


@needs_tool("curl")
@pytest.mark.parametrize("kind", TOXICS)
def test_toxiproxy_readme_toxics_with_curl(kind: str, api: str, redis: int) -> None:
    curl, (attributes, response) = Curl(api), TOXICS[kind]
    config = {"name": kind, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{redis}"}
    port = int(curl("POST", "/proxies", config)[1]["listen"].rpartition(":")[2])
    status, toxic = curl("POST", f"/proxies/{kind}/toxics", {"type": kind, "attributes": attributes})
    assert (status, toxic["attributes"]) == (200, attributes)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(100):
            received += data
    assert received == response
    assert curl("DELETE", f"/proxies/{kind}")[0] == 204


@pytest.fixture
def toxiproxy(api: str) -> Iterator[Any]:
    """The `toxiproxy` package's client, whose deprecated imports cause warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("toxiproxy")
    client = package.Toxiproxy()
    host, _, port = api.partition(":")
    client.update_api_consumer(host, int(port))
    client.destroy_all()
    yield client
    client.destroy_all()


def test_toxiproxy_python_client(toxiproxy: Any, redis: int) -> None:
    assert toxiproxy.running()
    assert json.loads(toxiproxy.version())["version"].startswith("2.")
    proxy = toxiproxy.create(name="redis", upstream=f"127.0.0.1:{redis}")
    port = int(proxy.listen.rpartition(":")[2])
    assert list(toxiproxy.proxies()) == ["redis"]
    assert toxiproxy.get_proxy("redis").upstream == f"127.0.0.1:{redis}"
    with pytest.raises(Exception, match="already exists"):
        toxiproxy.create(name="redis", upstream="127.0.0.1:1")

    proxy.add_toxic(type="latency", attributes={"latency": 200, "jitter": 0})
    proxy.add_toxic(type="bandwidth", stream="upstream", name="thin", toxicity=0.5, attributes={"rate": 100})
    assert set(proxy.toxics()) == {"latency_downstream", "thin"}
    thin = proxy.get_toxic("thin")
    assert (thin.type, thin.stream, thin.toxicity, thin.attributes) == (
        "bandwidth",
        "upstream",
        0.5,
        {"rate": 100},
    )
    assert request(port)[1] >= 0.2
    assert proxy.destroy_toxic("latency_downstream")
    assert set(proxy.toxics()) == {"thin"}
    with pytest.raises(Exception, match="invalid toxic type"):
        proxy.add_toxic(type="no-such-toxic")
    with pytest.raises(Exception, match="toxic not found"):
        proxy.destroy_toxic("latency_downstream")

    with proxy.down():
        assert is_refused(port)
    assert request(port)[0] == b"GET omg\n"
    assert toxiproxy.reset()
    assert not proxy.toxics()

    configs = [
        {"name": "redis", "listen": proxy.listen, "upstream": proxy.upstream},
        {"name": "mysql", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:3306"},
    ]
    assert [each.name for each in toxiproxy.populate(configs)] == ["mysql"]
    assert set(toxiproxy.proxies()) == {"redis", "mysql"}
    assert toxiproxy.destroy(proxy)
    assert toxiproxy.get_proxy("redis") is None
