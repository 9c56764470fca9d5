"""Toxiproxy's API over a real connection, request by request as in its documentation."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.impair.api import format_endpoint, parse_endpoint
from tests.impair.api_client import ApiClient
from tests.impair.running import TIMEOUT, echo, tcp_server, udp_echo_server


def create_proxy(api_client: ApiClient, upstream: str = "localhost:6379", **more: Any) -> dict[str, Any]:
    status, proxy = api_client("POST", "/proxies", {"name": "redis", "upstream": upstream} | more)
    assert status == 201
    assert isinstance(proxy, dict)
    return proxy


def test_version_is_toxiproxys(api_client: ApiClient) -> None:
    status, text = api_client("GET", "/version")
    assert status == 200
    assert re.fullmatch(r'\{"version": "2\.\d+\.\d+"\}\n', text)


def test_proxy_create_get_delete(api_client: ApiClient) -> None:
    assert api_client("GET", "/proxies") == (200, {})
    proxy = create_proxy(api_client, listen="127.0.0.1:0")
    port = int(proxy["listen"].rpartition(":")[2])
    assert port > 0
    assert proxy == {
        "name": "redis",
        "listen": f"127.0.0.1:{port}",
        "upstream": "localhost:6379",
        "enabled": True,
        "toxics": [],
    }
    assert api_client("GET", "/proxies") == (200, {"redis": proxy})
    assert api_client("GET", "/proxies/redis") == (200, proxy)
    assert api_client("DELETE", "/proxies/redis") == (204, "")
    assert api_client("GET", "/proxies/redis") == (404, {"error": "proxy not found", "status": 404})


def test_toxic_add_update_remove(api_client: ApiClient) -> None:
    create_proxy(api_client)
    latency = {
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1,
        "attributes": {"latency": 1000, "jitter": 0},
    }
    assert api_client(
        "POST", "/proxies/redis/toxics", {"type": "latency", "attributes": {"latency": 1000}}
    ) == (
        200,
        latency,
    )
    assert api_client("GET", "/proxies/redis/toxics") == (200, [latency])
    assert api_client("GET", "/proxies/redis/toxics/latency_downstream") == (200, latency)
    assert api_client("GET", "/proxies/redis")[1]["toxics"] == [latency]
    changed = latency | {"attributes": {"latency": 1000, "jitter": 50}, "toxicity": 0.5}
    for method in ("POST", "PATCH"):
        body = {"attributes": {"jitter": 50}, "toxicity": 0.5}
        assert api_client(method, "/proxies/redis/toxics/latency_downstream", body) == (200, changed)
    assert api_client("DELETE", "/proxies/redis/toxics/latency_downstream") == (204, "")
    assert api_client("GET", "/proxies/redis/toxics") == (200, [])


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
def test_toxiproxy_toxics_accept_their_attributes(
    api_client: ApiClient, kind: str, attributes: dict[str, int]
) -> None:
    create_proxy(api_client)
    body = {"name": "mine", "type": kind, "stream": "upstream", "toxicity": 1.0, "attributes": attributes}
    assert api_client("POST", "/proxies/redis/toxics", body) == (200, body)


def test_toxic_added_by_api_affects_open_connection(api_client: ApiClient) -> None:
    with tcp_server(echo) as server:
        proxy = create_proxy(api_client, format_endpoint(server))
        endpoint = parse_endpoint(proxy["listen"])
        with socket.create_connection((endpoint.host, endpoint.port), TIMEOUT) as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            api_client("POST", "/proxies/redis/toxics", {"type": "limit_data", "attributes": {"bytes": 5}})
            client.sendall(b"another")
            assert client.recv(10) + client.recv(10) == b"anoth"
            assert client.recv(10) == b""


def test_proxy_disable_and_enable(api_client: ApiClient) -> None:
    with tcp_server(echo) as server:
        proxy = create_proxy(api_client, format_endpoint(server))
        endpoint = parse_endpoint(proxy["listen"])
        response = api_client("POST", "/proxies/redis", {"enabled": False})
        assert response == (200, proxy | {"enabled": False})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((endpoint.host, endpoint.port), TIMEOUT)
        assert api_client("PATCH", "/proxies/redis", {"enabled": True}) == (200, proxy)
        socket.create_connection((endpoint.host, endpoint.port), TIMEOUT).close()


def test_proxy_update_changes_addresses(api_client: ApiClient) -> None:
    before = create_proxy(api_client)
    status, after = api_client("POST", "/proxies/redis", {"listen": "127.0.0.1:0", "upstream": "localhost:1"})
    assert status == 200
    assert after["upstream"] == "localhost:1"
    assert after["enabled"]
    assert api_client("POST", "/proxies/redis", {"listen": before["listen"]})[1]["listen"] == before["listen"]


def test_reset_enables_proxies_and_removes_toxics(api_client: ApiClient) -> None:
    create_proxy(api_client, enabled=False)
    api_client("POST", "/proxies/redis/toxics", {"type": "latency"})
    assert api_client("POST", "/reset") == (204, "")
    proxy = api_client("GET", "/proxies/redis")[1]
    assert proxy["enabled"]
    assert proxy["toxics"] == []


def test_populate_keeps_same_proxy_and_replaces_changed(api_client: ApiClient) -> None:
    create_proxy(api_client)
    api_client("POST", "/proxies/redis/toxics", {"type": "latency"})
    listen = api_client("GET", "/proxies/redis")[1]["listen"]
    configs = [
        {"name": "redis", "listen": listen, "upstream": "localhost:6379"},
        {"name": "mysql", "listen": "127.0.0.1:0", "upstream": "localhost:3306", "enabled": False},
    ]
    status, response = api_client("POST", "/populate", configs)
    assert status == 201
    assert [(each["name"], each["enabled"], len(each["toxics"])) for each in response["proxies"]] == [
        ("redis", True, 1),
        ("mysql", False, 0),
    ]
    configs[0]["upstream"] = "localhost:6380"
    assert api_client("POST", "/populate", configs)[1]["proxies"][0]["toxics"] == []


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
        ("POST", "/proxies", {"name": 5, "upstream": "a:1"}, 400, "bad request body: name is not a string"),
        ("POST", "/proxies", {"name": "b", "upstream": "a"}, 400, "bad request body: "),
        ("POST", "/proxies", {"name": "b", "upstream": "tls://a:1"}, 400, "pass through tcp://"),
        ("POST", "/proxies", {"name": "b", "upstream": "udp://a:1"}, 400, "both must be streams"),
        (
            "POST",
            "/proxies",
            {"name": "b", "upstream": "a:1", "listen": "192.0.2.1:0"},
            500,
            "cannot assign requested address",
        ),
        ("POST", "/proxies/redis/toxics", {"type": "nosuch"}, 400, "invalid toxic type"),
        ("POST", "/proxies/redis/toxics", {"type": "latency"}, 409, "toxic already exists"),
        ("POST", "/proxies/redis/toxics", {"type": "slicer", "stream": "up"}, 400, "stream was invalid"),
        ("POST", "/proxies/redis/toxics", {"type": "slicer", "toxicity": 2}, 400, "from 0 to 1"),
        (
            "POST",
            "/proxies/redis/toxics",
            {"type": "slicer", "attributes": {"delay": "x"}},
            400,
            "delay must be a",
        ),
        ("POST", "/proxies/redis/toxics", {"type": "loss"}, 400, "bothends wire"),
        ("POST", "/populate", [{"name": "b"}], 400, "missing required field: upstream at proxy 1"),
        ("POST", "/populate", {}, 400, "a list of proxies"),
        ("GET", "/nosuch", None, 404, "404 page not found"),
        ("DELETE", "/version", None, 405, "method not allowed"),
    ],
)
def test_errors_have_toxiproxys_format(
    api_client: ApiClient, method: str, path: str, body: Any, status: int, error: str
) -> None:
    create_proxy(api_client)
    api_client("POST", "/proxies/redis/toxics", {"type": "latency"})
    before = api_client("GET", "/proxies")
    actual_status, response = api_client(method, path, body)
    assert (actual_status, response["status"]) == (status, status)
    assert error in response["error"]
    assert api_client("GET", "/proxies") == before


def test_browser_user_agent_is_forbidden(api_client: ApiClient) -> None:
    fields = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    assert api_client("GET", "/proxies", None, **fields) == (403, "User agent not allowed\n")


def test_udp_proxy_and_own_toxics_are_extensions(api_client: ApiClient) -> None:
    with udp_echo_server() as server:
        proxy = create_proxy(api_client, str(server), listen="udp://127.0.0.1:0")
        assert proxy["listen"].startswith("udp://127.0.0.1:")
        body = {
            "type": "loss",
            "stream": "upstream",
            "attributes": {"probability": 1, "burst": 3},
            "clients": ["10.0.0.0/8"],
        }
        status, toxic = api_client("POST", "/proxies/redis/toxics", body)
        assert status == 200
        assert toxic == body | {"name": "loss_upstream", "toxicity": 1}
        endpoint = parse_endpoint(proxy["listen"])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect((endpoint.host, endpoint.port))
            client.send(b"from another network")
            assert client.recv(100) == b"from another network"


def test_metrics_have_toxiproxys_names(api_client: ApiClient) -> None:
    with tcp_server(echo) as server:
        proxy = create_proxy(api_client, format_endpoint(server))
        api_client("POST", "/proxies/redis/toxics", {"type": "slicer", "attributes": {"average_size": 2}})
        endpoint = parse_endpoint(proxy["listen"])
        with socket.create_connection((endpoint.host, endpoint.port), TIMEOUT) as client:
            client.sendall(b"hello")
            received = b""
            while len(received) < 5:
                received += client.recv(5)
            text = api_client("GET", "/metrics")[1]
    labels = f'listener="{proxy["listen"]}",proxy="redis",upstream="{proxy["upstream"]}"'
    for direction in ("upstream", "downstream"):
        for counter in ("received", "sent"):
            assert f'toxiproxy_proxy_{counter}_bytes_total{{direction="{direction}",{labels}}} 5\n' in text
    assert 'bothends_impair_connections{proxy="redis"} 1\n' in text
    assert 'bothends_impair_toxic_total{proxy="redis",toxic="slicer_downstream",did="cut"} 1\n' in text


def test_head_has_no_body_and_invalid_request_closes(api_client: ApiClient) -> None:
    api_client.connection.request("HEAD", "/proxies")
    assert api_client.connection.getresponse().read() == b""
    assert api_client("GET", "/proxies") == (200, {})
    with socket.create_connection(("127.0.0.1", api_client.server.endpoint.port), TIMEOUT) as client:
        client.sendall(b"hello\r\n\r\n")
        response = b""
        while data := client.recv(1000):
            response += data
    assert response.startswith(b"HTTP/1.1 400 ")


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
def test_endpoint_parse_and_format(text: str, endpoint: str, shown: str) -> None:
    assert parse_endpoint(text) == Endpoint.parse(endpoint)
    assert format_endpoint(parse_endpoint(text)) == shown
