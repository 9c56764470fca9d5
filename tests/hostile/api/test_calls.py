"""API calls that reach for more than the client may have: each gets an error, and changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothends.impair.api import ApiAccess
from bothends.impair.proxies import MAX_PROXIES
from tests.hostile.api.calls import RunningApi, call, running_api

TOKEN = "0123456789abcdef"


@pytest.fixture
def api() -> Iterator[RunningApi]:
    with running_api() as running:
        yield running


def assert_refused(api: RunningApi, path: str, body: Any, status: int, *, method: str = "POST") -> str:
    """Send a call and assert its status, and that it changes no proxy. Returns the error text."""
    before = call(api.port, "GET", "/proxies")
    actual, response = call(api.port, method, path, body)
    assert (actual, response["status"]) == (status, status)
    assert call(api.port, "GET", "/proxies") == before
    text = response["error"]
    assert isinstance(text, str)
    assert text.isprintable()
    return text


# Rights of the process -------------------------------------------------------------------------------

UNIX_ENDPOINTS = [
    "unix:{}",
    "unix://{}",
    "{}",
    "unix:@hidden",
    "unix+dgram:{}",
    "unix+seqpacket:{}",
    "proxyprotocol+unix://{}",
]


@pytest.mark.parametrize("text", UNIX_ENDPOINTS)
@pytest.mark.parametrize("side", ["listen", "upstream"])
def test_unix_endpoint_is_refused_and_not_touched(
    api: RunningApi, tmp_path: Path, side: str, text: str
) -> None:
    path = tmp_path / "socket"
    endpoint = text.format(path)
    body = {"name": "a", "upstream": "127.0.0.1:1", "listen": "127.0.0.1:0"} | {side: endpoint}
    call(api.port, "POST", "/proxies", {"name": "db", "upstream": "127.0.0.1:1"})
    for refused in (
        assert_refused(api, "/proxies", body, 403),
        assert_refused(api, "/populate", [body], 403),
        assert_refused(api, "/populate", [{"name": "c", "upstream": "127.0.0.1:1"}, body], 403),
        assert_refused(api, "/proxies/db", {side: endpoint}, 403),
        assert_refused(api, "/proxies/db", {side: endpoint}, 403, method="PATCH"),
    ):
        assert "--api-allow unix" in refused
    assert list(tmp_path.iterdir()) == []


def test_unix_endpoint_is_allowed_if_asked_for_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_api(ApiAccess(allow=frozenset({"unix"}))) as api:
        status, _ = call(
            api.port, "POST", "/proxies", {"name": "a", "listen": f"unix:{path}", "upstream": "a:1"}
        )
        assert status == 201
        assert path.is_socket()


def test_unix_proxy_of_the_command_line_can_be_disabled_and_kept(api: RunningApi, tmp_path: Path) -> None:
    proxy = api.proxies.proxy("tcp://127.0.0.1:0", f"unix:{tmp_path}/upstream", name="own")
    assert call(api.port, "POST", "/proxies/own", {"enabled": False})[0] == 200
    same = {"name": "own", "listen": str(proxy.listen), "upstream": str(proxy.upstream)}
    assert call(api.port, "POST", "/populate", [same])[0] == 201
    assert_refused(api, "/proxies/own", {"upstream": f"unix:{tmp_path}/other"}, 403)


@pytest.mark.parametrize(
    ("side", "endpoint"),
    [
        ("listen", "127.0.0.1:1"),
        ("listen", "udp://127.0.0.1:53"),
        ("upstream", "tcp://127.0.0.1:1?mark=1"),
        ("listen", "tcp://127.0.0.1:0?mark=1"),
        ("listen", "fd://0"),
        ("upstream", "fd://5"),
        ("upstream", "systemd://name"),
        ("upstream", "stdio:"),
    ],
)
def test_privilege_of_the_process_is_refused(api: RunningApi, side: str, endpoint: str) -> None:
    upstream = "udp://127.0.0.1:1" if endpoint.startswith("udp") else "127.0.0.1:1"
    body = {"name": "a", "listen": "127.0.0.1:0", "upstream": upstream} | {side: endpoint}
    assert_refused(api, "/proxies", body, 403)


# Names and numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["\ud800", "a\udfffb", "a\0", "\x1b[31m", "a\nb", "\x7f", "\x9b31m", "\u202egnp", "a\u200b", "x" * 256],
)
def test_name_that_is_no_text_is_refused(api: RunningApi, name: str) -> None:
    call(api.port, "POST", "/proxies", {"name": "db", "upstream": "127.0.0.1:1"})
    body = {"name": name, "upstream": "127.0.0.1:1"}
    assert "printable" in assert_refused(api, "/proxies", body, 400)
    assert "printable" in assert_refused(api, "/populate", [body], 400)
    assert "printable" in assert_refused(api, "/proxies/db/toxics", {"type": "latency", "name": name}, 400)
    assert call(api.port, "GET", "/metrics")[0] == 200


@pytest.mark.parametrize("name", ["x" * 255, "größe", "a/b c", '\\"{}', "名前"])
def test_other_names_are_served(api: RunningApi, name: str) -> None:
    assert call(api.port, "POST", "/proxies", {"name": name, "upstream": "127.0.0.1:1"})[0] == 201
    status, text = call(api.port, "GET", "/metrics")
    assert status == 200
    assert "bothends_impair_connections{proxy=" in text


@pytest.mark.parametrize("number", [b"1e300", b"1e16", b"-1", b"NaN", b"Infinity", b"1" + b"0" * 400])
@pytest.mark.parametrize("attribute", [b"latency", b"jitter"])
def test_number_out_of_bounds_is_refused(api: RunningApi, attribute: bytes, number: bytes) -> None:
    call(api.port, "POST", "/proxies", {"name": "db", "upstream": "127.0.0.1:1"})
    body = b'{"type": "latency", "attributes": {"%b": %b}}' % (attribute, number)
    assert attribute.decode() in assert_refused(api, "/proxies/db/toxics", body, 400)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("latency", {"latency": 1e15, "jitter": 1e15}),
        ("corrupt", {"bit_errors": 5e-324}),
        ("timeout", {"timeout": 1e15}),
    ],
)
def test_extreme_number_does_not_end_the_proxies(
    api: RunningApi, kind: str, attributes: dict[str, float]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        target = f"127.0.0.1:{upstream.getsockname()[1]}"
        _, proxy = call(api.port, "POST", "/proxies", {"name": "db", "upstream": target})
        toxic = {"type": kind, "stream": "upstream", "attributes": attributes}
        assert call(api.port, "POST", "/proxies/db/toxics", toxic)[0] == 200
        host, _, port = proxy["listen"].rpartition(":")
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall(b"hello")
            flow = api.proxies.proxies.get("db")
            assert flow is not None
            api.proxies.wait_until(lambda: flow.traffic("upstream").received == 5, "the toxic has the data")
            assert call(api.port, "GET", "/version")[0] == 200


def test_more_proxies_than_the_maximum_are_refused(api: RunningApi) -> None:
    many = [{"name": f"p{n}", "upstream": "127.0.0.1:1", "enabled": False} for n in range(MAX_PROXIES + 1)]
    assert "1,000" in assert_refused(api, "/populate", many, 400)
    assert call(api.port, "POST", "/populate", many[:-1])[0] == 201
    assert "maximum" in assert_refused(api, "/proxies", many[-1], 400)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"\xff\xfe{", b"null", b"{}x"]
)
def test_body_that_is_no_json_object_is_one_error(api: RunningApi, body: bytes) -> None:
    assert "bad request body" in assert_refused(api, "/proxies", body, 400)


# Web pages of other sites, and other hosts -----------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "evil.example"}, 421),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example:8474"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"User_Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, 403),
    ],
)
def test_request_of_a_web_page_is_refused(api: RunningApi, fields: dict[str, str], status: int) -> None:
    body = {"name": "a", "upstream": "127.0.0.1:1"}
    assert call(api.port, "POST", "/proxies", body, **fields)[0] == status
    assert call(api.port, "GET", "/proxies", **fields)[0] == status
    assert call(api.port, "GET", "/proxies") == (200, {})


def test_host_may_be_a_name_of_this_machine() -> None:
    with running_api(ApiAccess(hosts=frozenset({"here"}))) as api:
        for host in ("localhost:1", "app.localhost", "127.0.0.1", "[::1]:80", "192.0.2.1", "HERE:80"):
            assert call(api.port, "GET", "/version", Host=host)[0] == 200
        assert call(api.port, "GET", "/version", Host="there")[0] == 421


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer \xff", 401),
        (f"Digest {TOKEN}", 401),
        ("Basic ////", 401),
        ("Basic !", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        ("Basic MDEyMzQ1Njc4OWFiY2RlZjo=", 200),  # TOKEN as the user, as in http://TOKEN@host
        ("Basic OjAxMjM0NTY3ODlhYmNkZWY=", 200),  # as the password
    ],
)
def test_token_is_required(authorization: str | None, status: int) -> None:
    fields = {} if authorization is None else {"Authorization": authorization}
    with running_api(ApiAccess(token=TOKEN)) as api:
        assert call(api.port, "GET", "/proxies", **fields)[0] == status
        assert call(api.port, "DELETE", "/version", **fields)[0] == (405 if status == 200 else 401)
