"""Requests of others are refused: without the cookie, for another Host, from another Origin."""

from __future__ import annotations

import contextlib
import json
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.lab.running import Lab
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]
PATHS = ["/", "/begin", "/static/lab.js"]


def test_token_gives_a_strict_cookie_and_the_page(lab: Lab) -> None:
    url = urlsplit(lab.address)
    status, fields, body = lab.get(f"/?{url.query}")
    assert status == 200
    assert "<title>bothends lab</title>" in body
    assert "HttpOnly; SameSite=Strict" in fields["set-cookie"]
    assert url.query.partition("=")[2] not in fields["set-cookie"]
    policy = fields["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert fields["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
def test_cookie_opens_everything(lab: Lab, path: str) -> None:
    status, fields, _ = lab.get(path, {"Cookie": lab.cookie})
    assert status == 200
    assert "set-cookie" not in fields


@pytest.mark.parametrize("path", [*PATHS, "/?token=", "/?token=wrong", "/static/lab.js?token=wrong"])
@pytest.mark.parametrize("cookie", ["", "other=1", "wrong"])
def test_without_token_and_cookie_nothing_is_served(lab: Lab, path: str, cookie: str) -> None:
    if cookie == "wrong":
        cookie = lab.cookie.partition("=")[0] + "=wrong"
    status, fields, body = lab.get(path, {"Cookie": cookie} if cookie else {})
    assert status == 403
    assert "set-cookie" not in fields
    assert "script" not in body


def test_token_opens_the_page_only(lab: Lab) -> None:
    query = urlsplit(lab.address).query
    assert lab.get(f"/begin?{query}")[0] == 403
    assert lab.get(f"/static/lab.js?{query}")[0] == 403


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "example.org"}, 421),
        ({"Host": "127.0.0.1.example.org"}, 421),
        ({"Host": ""}, 400),
        ({"Origin": "http://example.org"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_requests_on_behalf_of_other_sites_are_refused(lab: Lab, fields: dict[str, str], status: int) -> None:
    assert lab.get("/", {"Cookie": lab.cookie} | fields)[0] == status


@pytest.mark.parametrize(
    "changed",
    [
        {"Cookie": ""},
        {"Cookie": "bothends-lab=1"},
        {"Origin": ""},
        {"Origin": "http://example.org"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_websocket_of_others_is_refused(lab: Lab, changed: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as caught, lab.connect(**changed):
        pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"])
def test_files_outside_of_the_page_are_not_served(lab: Lab, path: str) -> None:
    assert lab.get(path, {"Cookie": lab.cookie})[0] == 404


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        '{"type": "start"}',
        '{"type": "begin"}',
        '{"type": "start", "programs": []}',
        '{"type": "stop", "more": 1}',
        json.dumps({"type": "start", "programs": [{"kind": "server", "file": "../a.py", "text": ""}]}),
        json.dumps({"type": "start", "programs": [{"kind": "server", "file": "a/b.py", "text": ""}]}),
        json.dumps({"type": "start", "programs": [
            {"kind": "server", "file": "a.py", "text": "a" * 100_001}
        ]}),
        json.dumps({"type": "start", "programs": [{"kind": "server", "file": "a.py", "text": ""}] * 7}),
        json.dumps({"type": "start", "time_limit": 1e9, "programs": [
            {"kind": "server", "file": "a.py", "text": ""}
        ]}),
    ],
)  # fmt: skip
def test_malformed_requests_are_named(lab: Lab, message: str) -> None:
    with lab.connect() as websocket:
        websocket.send(message)
        assert json.loads(websocket.recv(10))["type"] == "failed"


def test_too_many_requests_end_the_connection(lab: Lab) -> None:
    with lab.connect() as websocket:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(150):
                websocket.send('{"type": "stop"}')
        with pytest.raises(ConnectionClosed):
            websocket.recv(10)


def test_too_large_and_binary_messages_end_the_connection(lab: Lab) -> None:
    for message in ("x" * (2 << 20), b"binary"):
        with lab.connect() as websocket:
            with contextlib.suppress(ConnectionClosed):
                websocket.send(message)
            with pytest.raises(ConnectionClosed):
                websocket.recv(10)
