"""Toxiproxy's API over a real connection, request by request as its documentation has it."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.impair.api import Api, read_endpoint, show_endpoint
from bothends.impair.api_server import Control
from tests.impair.running import PATIENCE, Running, datagram_echo, echo, tcp_server


class Client:
    """One connection that is kept, as clients' libraries keep it."""

    def __init__(self, running: Running, control: Control) -> None:
        self.running = running
        self.control = control
        self.connection = http.client.HTTPConnection("127.0.0.1", control.endpoint.port, timeout=PATIENCE)

    def __call__(self, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        self.connection.request(method, path, data, fields)
        answer = self.connection.getresponse()
        text = answer.read()
        is_json = answer.headers.get("Content-Type") == "application/json"
        return answer.status, json.loads(text) if is_json else text.decode()


@pytest.fixture
def ask() -> Iterator[Client]:
    with Running() as running:
        control = running.do(
            lambda: Control(
                running.loop,
                Api(running.proxies, "0"),
                Endpoint.parse("tcp://127.0.0.1:0"),
            )
        )
        client = Client(running, control)
        yield client
        client.connection.close()
        running.do(control.close)


def create(ask: Client, upstream: str = "localhost:6379", **more: Any) -> dict[str, Any]:
    status, proxy = ask("POST", "/proxies", {"name": "redis", "upstream": upstream} | more)
    assert status == 201
    assert isinstance(proxy, dict)
    return proxy


def test_the_version_is_that_of_the_api(ask: Client) -> None:
    status, told = ask("GET", "/version")
    assert status == 200
    assert re.fullmatch(r"2\.\d+\.\d+", told["version"])


def test_a_proxy_is_created_shown_and_deleted(ask: Client) -> None:
    assert ask("GET", "/proxies") == (200, {})
    proxy = create(ask, listen="127.0.0.1:0")
    port = int(proxy["listen"].rpartition(":")[2])
    assert port > 0
    assert proxy == {
        "name": "redis",
        "listen": f"127.0.0.1:{port}",
        "upstream": "localhost:6379",
        "enabled": True,
        "toxics": [],
    }
    assert ask("GET", "/proxies") == (200, {"redis": proxy})
    assert ask("GET", "/proxies/redis") == (200, proxy)
    assert ask("DELETE", "/proxies/redis") == (204, "")
    assert ask("GET", "/proxies/redis") == (404, {"error": "proxy not found", "status": 404})


def test_a_toxic_is_added_changed_and_removed(ask: Client) -> None:
    create(ask)
    latency = {
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1,
        "attributes": {"latency": 1000, "jitter": 0},
    }
    assert ask("POST", "/proxies/redis/toxics", {"type": "latency", "attributes": {"latency": 1000}}) == (
        200,
        latency,
    )
    assert ask("GET", "/proxies/redis/toxics") == (200, [latency])
    assert ask("GET", "/proxies/redis/toxics/latency_downstream") == (200, latency)
    assert ask("GET", "/proxies/redis")[1]["toxics"] == [latency]
    changed = latency | {"attributes": {"latency": 1000, "jitter": 50}, "toxicity": 0.5}
    for method in ("POST", "PATCH"):
        body = {"attributes": {"jitter": 50}, "toxicity": 0.5}
        assert ask(method, "/proxies/redis/toxics/latency_downstream", body) == (200, changed)
    assert ask("DELETE", "/proxies/redis/toxics/latency_downstream") == (204, "")
    assert ask("GET", "/proxies/redis/toxics") == (200, [])


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("latency", {"latency": 1000, "jitter": 100}),
        ("bandwidth", {"rate": 100}),
        ("slow_close", {"delay": 1000}),
        ("timeout", {"timeout": 1000}),
        ("reset_peer", {"timeout": 1000}),
        ("slicer", {"average_size": 64, "size_variation": 32, "delay": 10}),
        ("limit_data", {"bytes": 1000}),
    ],
)
def test_every_toxic_of_toxiproxy_has_its_attributes(
    ask: Client, kind: str, attributes: dict[str, int]
) -> None:
    create(ask)
    body = {"name": "mine", "type": kind, "stream": "upstream", "toxicity": 1.0, "attributes": attributes}
    assert ask("POST", "/proxies/redis/toxics", body) == (200, body)


def test_the_path_really_is_as_bad_as_the_api_says(ask: Client) -> None:
    with tcp_server(echo) as server:
        proxy = create(ask, show_endpoint(server))
        where = read_endpoint(proxy["listen"])
        with socket.create_connection((where.host, where.port), PATIENCE) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            ask("POST", "/proxies/redis/toxics", {"type": "limit_data", "attributes": {"bytes": 5}})
            client.sendall(b"another")
            assert client.recv(10) + client.recv(10) == b"anoth"
            assert client.recv(10) == b""


def test_disabled_and_enabled(ask: Client) -> None:
    with tcp_server(echo) as server:
        proxy = create(ask, show_endpoint(server))
        where = read_endpoint(proxy["listen"])
        status, told = ask("POST", "/proxies/redis", {"enabled": False})
        assert (status, told) == (200, proxy | {"enabled": False})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((where.host, where.port), PATIENCE)
        assert ask("PATCH", "/proxies/redis", {"enabled": True}) == (200, proxy)
        socket.create_connection((where.host, where.port), PATIENCE).close()


def test_a_proxy_can_be_moved(ask: Client) -> None:
    before = create(ask)
    status, after = ask("POST", "/proxies/redis", {"listen": "127.0.0.1:0", "upstream": "localhost:1"})
    assert status == 200
    assert after["upstream"] == "localhost:1"
    assert after["enabled"]
    assert ask("POST", "/proxies/redis", {"listen": before["listen"]})[1]["listen"] == before["listen"]


def test_reset_enables_all_and_takes_every_toxic_away(ask: Client) -> None:
    create(ask, enabled=False)
    ask("POST", "/proxies/redis/toxics", {"type": "latency"})
    assert ask("POST", "/reset") == (204, "")
    proxy = ask("GET", "/proxies/redis")[1]
    assert proxy["enabled"]
    assert proxy["toxics"] == []


def test_populate_leaves_what_is_there_and_replaces_what_is_different(ask: Client) -> None:
    create(ask)
    ask("POST", "/proxies/redis/toxics", {"type": "latency"})
    listen = ask("GET", "/proxies/redis")[1]["listen"]
    wanted = [
        {"name": "redis", "listen": listen, "upstream": "localhost:6379"},
        {"name": "mysql", "listen": "127.0.0.1:0", "upstream": "localhost:3306", "enabled": False},
    ]
    status, told = ask("POST", "/populate", wanted)
    assert status == 201
    assert [(each["name"], each["enabled"], len(each["toxics"])) for each in told["proxies"]] == [
        ("redis", True, 1),
        ("mysql", False, 0),
    ]
    wanted[0]["upstream"] = "localhost:6380"
    assert ask("POST", "/populate", wanted)[1]["proxies"][0]["toxics"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/proxies/nosuch", None, 404, "proxy not found"),
        ("DELETE", "/proxies/nosuch", None, 404, "proxy not found"),
        ("GET", "/proxies/redis/toxics/nosuch", None, 404, "toxic not found"),
        ("DELETE", "/proxies/redis/toxics/nosuch", None, 404, "toxic not found"),
        ("PATCH", "/proxies/redis/toxics/nosuch", {}, 404, "toxic not found"),
        ("POST", "/proxies", {"name": "redis", "upstream": "a:1"}, 409, "proxy already exists"),
        ("POST", "/proxies", {"upstream": "a:1"}, 400, "missing required field: name"),
        ("POST", "/proxies", {"name": "b"}, 400, "missing required field: upstream"),
        ("POST", "/proxies", b"{", 400, "bad request body: "),
        ("POST", "/proxies", [], 400, "bad request body: "),
        ("POST", "/proxies", {"name": 5, "upstream": "a:1"}, 400, "bad request body: name is no string"),
        ("POST", "/proxies", {"name": "b", "upstream": "a"}, 400, "bad request body: "),
        ("POST", "/proxies", {"name": "b", "upstream": "tls://a:1"}, 400, "pass through tcp://"),
        ("POST", "/proxies", {"name": "b", "upstream": "udp://a:1"}, 400, "both must be streams"),
        ("POST", "/proxies", {"name": "b", "upstream": "a:1", "listen": "192.0.2.1:0"}, 500, "EADDRNOTAVAIL"),
        ("POST", "/proxies/redis/toxics", {"type": "nosuch"}, 400, "invalid toxic type"),
        ("POST", "/proxies/redis/toxics", {"type": "latency"}, 409, "toxic already exists"),
        ("POST", "/proxies/redis/toxics", {"type": "slicer", "stream": "up"}, 400, "stream was invalid"),
        ("POST", "/proxies/redis/toxics", {"type": "slicer", "toxicity": 2}, 400, "from 0 to 1"),
        (
            "POST",
            "/proxies/redis/toxics",
            {"type": "slicer", "attributes": {"delay": "x"}},
            400,
            "delay is a",
        ),
        ("POST", "/proxies/redis/toxics", {"type": "loss"}, 400, "bothends wire"),
        ("POST", "/populate", [{"name": "b"}], 400, "missing required field: upstream at proxy 1"),
        ("POST", "/populate", {}, 400, "a list of proxies"),
        ("GET", "/nosuch", None, 404, "404 page not found"),
        ("DELETE", "/version", None, 405, "method not allowed"),
    ],
)
def test_errors_have_toxiproxys_form(
    ask: Client, method: str, path: str, body: Any, status: int, error: str
) -> None:
    create(ask)
    ask("POST", "/proxies/redis/toxics", {"type": "latency"})
    before = ask("GET", "/proxies")
    told, answer = ask(method, path, body)
    assert (told, answer["status"]) == (status, status)
    assert error in answer["error"]
    assert ask("GET", "/proxies") == before


def test_pages_in_a_browser_are_kept_out(ask: Client) -> None:
    fields = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    assert ask("GET", "/proxies", None, **fields) == (403, "User agent not allowed\n")


def test_our_own_kinds_and_toxics_are_extensions(ask: Client) -> None:
    with datagram_echo() as server:
        proxy = create(ask, str(server), listen="udp://127.0.0.1:0")
        assert proxy["listen"].startswith("udp://127.0.0.1:")
        body = {
            "type": "loss",
            "stream": "upstream",
            "attributes": {"probability": 1, "burst": 3},
            "clients": ["10.0.0.0/8"],
        }
        status, toxic = ask("POST", "/proxies/redis/toxics", body)
        assert status == 200
        assert toxic == body | {"name": "loss_upstream", "toxicity": 1}
        where = read_endpoint(proxy["listen"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect((where.host, where.port))
            client.send(b"not of that network")
            assert client.recv(100) == b"not of that network"


def test_metrics_have_toxiproxys_names(ask: Client) -> None:
    with tcp_server(echo) as server:
        proxy = create(ask, show_endpoint(server))
        ask("POST", "/proxies/redis/toxics", {"type": "slicer", "attributes": {"average_size": 2}})
        where = read_endpoint(proxy["listen"])
        with socket.create_connection((where.host, where.port), PATIENCE) as client:
            client.sendall(b"hello")
            received = b""
            while len(received) < 5:
                received += client.recv(5)
            text = ask("GET", "/metrics")[1]
    labels = f'listener="{proxy["listen"]}",proxy="redis",upstream="{proxy["upstream"]}"'
    for direction in ("upstream", "downstream"):
        for what in ("received", "sent"):
            assert f'toxiproxy_proxy_{what}_bytes_total{{direction="{direction}",{labels}}} 5\n' in text
    assert 'bothends_impair_connections{proxy="redis"} 1\n' in text
    assert 'bothends_impair_toxic_total{proxy="redis",toxic="slicer_downstream",did="cut"} 1\n' in text


def test_head_has_no_body_and_what_is_no_http_is_told_and_closed(ask: Client) -> None:
    ask.connection.request("HEAD", "/proxies")
    assert ask.connection.getresponse().read() == b""
    assert ask("GET", "/proxies") == (200, {})
    with socket.create_connection(("127.0.0.1", ask.control.endpoint.port), PATIENCE) as client:
        client.sendall(b"hello\r\n\r\n")
        answer = b""
        while data := client.recv(1000):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("127.0.0.1:1", "tcp://127.0.0.1:1", "127.0.0.1:1"),
        ("localhost:1", "tcp://localhost:1", "localhost:1"),
        ("[::]:18080", "tcp://:18080", "[::]:18080"),
        (":18080", "tcp://:18080", "[::]:18080"),
        ("[::1]:1", "tcp://[::1]:1", "[::1]:1"),
        ("", "tcp://127.0.0.1:0", "127.0.0.1:0"),
        ("udp://127.0.0.1:1", "udp://127.0.0.1:1", "udp://127.0.0.1:1"),
        ("unix:///a", "unix:///a", "unix:///a"),
    ],
)
def test_addresses(text: str, endpoint: str, shown: str) -> None:
    assert read_endpoint(text) == Endpoint.parse(endpoint)
    assert show_endpoint(read_endpoint(text)) == shown
