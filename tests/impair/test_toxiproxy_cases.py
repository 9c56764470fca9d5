"""The cases of Toxiproxy's own test of its API (api_test.go), in Python, and what its source adds to them.

`python -m tests.impair.toxiproxy_suite` runs the original, which needs Go and a source tree of Toxiproxy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from bothends.sockets.free_port import free_port
from tests.impair.api_client import ApiClient
from tests.impair.running import TIMEOUT
from tests.impair.toxiproxy_suite.runner import EXPECTED_FAILURES, run_suite

CREATED, CONFLICT, FAILED = 201, 409, 500


def is_up(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # accepted, and reset because there is no upstream
        pass
    return True


def config(name: str, port: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "listen": f"localhost:{port}", "upstream": "localhost:1"} | more


def add_toxic(client: ApiClient, **fields: Any) -> tuple[int, Any]:
    return client("POST", "/proxies/a/toxics", fields)


def test_every_response_has_a_request_id_of_its_own(api_client: ApiClient) -> None:
    seen = []
    for method, path in (("GET", "/version"), ("GET", "/proxies/none"), ("POST", "/reset")):
        api_client(method, path)
        seen.append(api_client.fields["X-Toxiproxy-Request-Id"])
    assert all(re.fullmatch(r"[0-9a-v]{20}", each) for each in seen)
    assert len(set(seen)) == len(seen)
    assert sorted(seen) == seen or seen[0][:7] != seen[-1][:7]  # by time, then by a counter


def test_version_is_the_exact_text_of_toxiproxy(api_client: ApiClient) -> None:
    assert api_client("GET", "/version") == (200, '{"version": "2.12.0"}\n')
    assert api_client.fields["Content-Type"] == "application/json;charset=utf-8"


def test_agent_of_a_browser_is_refused_and_others_are_not(api_client: ApiClient) -> None:
    assert api_client("GET", "/proxies", **{"User-Agent": "Mozilla/5.0 (Linux) OPR/20.0"})[0] == 403
    assert api_client("GET", "/proxies", **{"User-Agent": "Wget/2.1"}) == (200, {})


def test_listen_is_shown_as_resolved_once_the_proxy_listens(api_client: ApiClient) -> None:
    status, proxy = api_client("POST", "/proxies", config("a"))
    assert status == CREATED
    assert re.fullmatch(r"127\.0\.0\.1:\d+", proxy["listen"])
    assert is_up(proxy["listen"])
    assert api_client("GET", "/proxies")[1]["a"] == proxy
    assert api_client("PATCH", "/proxies/a", {"enabled": False})[1]["listen"] == proxy["listen"]
    status, everywhere = api_client("POST", "/proxies", config("b", listen=":0"))
    assert everywhere["listen"].startswith("[::]:")


def test_listen_of_a_disabled_proxy_is_shown_as_given(api_client: ApiClient) -> None:
    port = free_port()
    proxy = api_client("POST", "/proxies", config("a", port, enabled=False))[1]
    assert (proxy["listen"], proxy["enabled"]) == (f"localhost:{port}", False)
    assert not is_up(f"127.0.0.1:{port}")
    proxy = api_client("POST", "/proxies/a", proxy | {"enabled": True})[1]
    assert (proxy["listen"], proxy["enabled"]) == (f"127.0.0.1:{port}", True)
    assert is_up(proxy["listen"])
    api_client("POST", "/proxies/a", proxy | {"enabled": False})
    assert not is_up(proxy["listen"])


def test_port_in_use_is_reported_in_gos_words(api_client: ApiClient) -> None:
    proxy = api_client("POST", "/proxies", config("a"))[1]
    port = int(proxy["listen"].rpartition(":")[2])
    status, error = api_client("POST", "/proxies", config("b", port))
    assert (status, error["status"]) == (FAILED, FAILED)
    assert error["error"] == f"listen tcp 127.0.0.1:{port}: bind: address already in use"
    assert "EADDRINUSE" in error["hint"]
    assert api_client("POST", "/proxies", config("b", listen=f":{port}"))[1]["error"] == (
        f"listen tcp :{port}: bind: address already in use"
    )
    api_client("DELETE", "/proxies/a")
    assert api_client("POST", "/proxies", config("b", port))[0] == CREATED


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("local373", "listen tcp: address local373: missing port in address"),
        ("192.0.2.1:0", "listen tcp 192.0.2.1:0: bind: cannot assign requested address"),
    ],
)
def test_listen_that_cannot_be_bound_is_reported_in_gos_words(
    api_client: ApiClient, listen: str, words: str
) -> None:
    status, error = api_client("POST", "/proxies", config("a", listen=listen))
    assert (status, error["error"]) == (FAILED, words)
    assert api_client("GET", "/proxies") == (200, {})


def test_name_in_use_is_a_conflict_until_it_is_deleted(api_client: ApiClient) -> None:
    api_client("POST", "/proxies", config("a"))
    assert api_client("POST", "/proxies", config("a"))[1] == {
        "error": "proxy already exists",
        "status": CONFLICT,
    }
    assert api_client("DELETE", "/proxies/a") == (204, "")
    assert api_client("DELETE", "/proxies/a")[1] == {"error": "proxy not found", "status": 404}
    assert api_client("POST", "/proxies", config("a"))[0] == CREATED


def test_populate_keeps_a_proxy_whose_name_resolves_to_its_address(api_client: ApiClient) -> None:
    proxy = api_client("POST", "/proxies", config("a"))[1]
    port = int(proxy["listen"].rpartition(":")[2])
    add_toxic(api_client, type="latency")
    status, answer = api_client("POST", "/populate", [config("a", port), config("b", listen="127.0.0.1:0")])
    assert status == CREATED
    assert [(each["name"], len(each["toxics"])) for each in answer["proxies"]] == [("a", 1), ("b", 0)]
    assert all(is_up(each["listen"]) for each in answer["proxies"])
    # A proxy that is kept stays as it is, whatever the list says.
    answer = api_client("POST", "/populate", [config("a", port, enabled=False)])[1]
    assert answer["proxies"][0]["enabled"]


def test_populate_that_fails_keeps_the_proxies_before_the_failure(api_client: ApiClient) -> None:
    configs = [config("one"), config("two", listen="local373"), config("three")]
    status, answer = api_client("POST", "/populate", configs)
    assert status == FAILED
    assert list(answer)[:2] == ["error", "status"]
    assert answer["error"] == "listen tcp: address local373: missing port in address"
    assert [each["name"] for each in answer["proxies"]] == ["one"]
    assert set(api_client("GET", "/proxies")[1]) == {"one"}


def test_populate_with_a_missing_field_creates_nothing(api_client: ApiClient) -> None:
    status, answer = api_client("POST", "/populate", [config("one"), {"name": "", "listen": ""}])
    assert (status, answer) == (
        400,
        {"error": "missing required field: name at proxy 2", "status": 400, "proxies": None},
    )
    assert api_client("GET", "/proxies") == (200, {})


def test_populate_without_enabled_enables_and_with_false_does_not(api_client: ApiClient) -> None:
    port = free_port()
    answer = api_client("POST", "/populate", [config("a"), config("b", port, enabled=False)])[1]
    assert is_up(answer["proxies"][0]["listen"])
    assert not is_up(f"127.0.0.1:{port}")


def test_reset_removes_toxics_and_enables(api_client: ApiClient) -> None:
    proxy = api_client("POST", "/proxies", config("a"))[1]
    add_toxic(api_client, type="latency", attributes={"latency": 100, "jitter": 10})
    api_client("PATCH", "/proxies/a", {"enabled": False})
    assert api_client("POST", "/reset") == (204, "")
    assert api_client("GET", "/proxies/a")[1] == proxy
    assert is_up(proxy["listen"])


def test_noop_toxic_exists(api_client: ApiClient) -> None:
    api_client("POST", "/proxies", config("a"))
    toxic = {"attributes": {}, "name": "foobar", "type": "noop", "stream": "downstream", "toxicity": 1}
    assert add_toxic(api_client, name="foobar", type="noop", stream="") == (200, toxic)
    assert api_client("GET", "/proxies/a/toxics") == (200, [toxic])


def test_toxic_names_conflict_across_directions_unless_default(api_client: ApiClient) -> None:
    api_client("POST", "/proxies", config("a"))
    assert add_toxic(api_client, name="t", type="latency", stream="downstream")[0] == 200
    conflict = {"error": "toxic already exists", "status": CONFLICT}
    assert add_toxic(api_client, name="t", type="slow_close", stream="downstream") == (CONFLICT, conflict)
    assert add_toxic(api_client, name="t", type="latency", stream="upstream") == (CONFLICT, conflict)
    assert add_toxic(api_client, type="latency", stream="downstream")[1]["name"] == "latency_downstream"
    assert add_toxic(api_client, type="latency", stream="UPSTREAM")[1]["stream"] == "upstream"
    # Toxiproxy lists the toxics of upstream first.
    names = [each["name"] for each in api_client("GET", "/proxies/a/toxics")[1]]
    assert names[0].endswith("stream")
    assert names[1:] == ["t", "latency_downstream"]


def test_toxic_update_leaves_what_it_does_not_name(api_client: ApiClient) -> None:
    api_client("POST", "/proxies", config("a"))
    add_toxic(api_client, type="latency", attributes={"latency": 100, "jitter": 10})
    path = "/proxies/a/toxics/latency_downstream"
    changed = api_client("PATCH", path, {"attributes": {"latency": 1000}, "toxicity": 0.5})[1]
    assert (changed["attributes"], changed["toxicity"]) == ({"latency": 1000, "jitter": 10}, 0.5)
    changed = api_client("PATCH", path, {"attributes": {"latency": 500}})[1]
    assert (changed["attributes"], changed["toxicity"]) == ({"latency": 500, "jitter": 10}, 0.5)


def test_unknown_toxic_type_has_toxiproxys_error_and_a_hint(api_client: ApiClient) -> None:
    api_client("POST", "/proxies", config("a"))
    status, error = add_toxic(api_client, type="latncy")
    assert (status, error["error"]) == (400, "invalid toxic type")
    assert "latency" in error["hint"]
    wrong = "stream was invalid, can be either upstream or downstream"
    assert add_toxic(api_client, type="latency", stream="walrustream")[1]["error"] == wrong


def test_metrics_have_toxiproxys_names_and_labels(api_client: ApiClient) -> None:
    proxy = api_client("POST", "/proxies", config("a"))[1]
    text = api_client("GET", "/metrics")[1]
    for name in ("received", "sent"):
        assert f"# TYPE toxiproxy_proxy_{name}_bytes_total counter\n" in text
        for direction in ("upstream", "downstream"):
            labels = f'direction="{direction}",listener="{proxy["listen"]}",proxy="a",upstream="localhost:1"'
            assert f"toxiproxy_proxy_{name}_bytes_total{{{labels}}} 0\n" in text


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TOXIPROXY_SOURCE") or shutil.which("go") is None,
    reason="needs Go, and TOXIPROXY_SOURCE, a source tree of Toxiproxy",
)
def test_toxiproxys_own_suite_passes() -> None:
    results = run_suite(Path(os.environ["TOXIPROXY_SOURCE"]))
    assert {case for case, is_passed in results.items() if not is_passed} == set(EXPECTED_FAILURES)
    assert len(results) >= 34, json.dumps(results)
