"""Forwarders without mistakes and bothends impair pass every case for proxies, and other proxies all but few.

docs/how-to/judge-a-proxy.md lists the cases that these do not pass. The quick tests run a few cases, the slow
ones the whole suite.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pytest

from bothends.check.case import Verdict
from bothends.check.runner import SuiteRun
from bothends.check.subjects import own_network
from bothends.check.subjects.proxy_under_test import ProxyUnderTest, proxy_contract
from bothends.check.suites.registry import cases
from tests.check.helpers import (
    BOTHENDS_COMMAND,
    build_starter,
    failed_cases,
    format_failures,
    judge_proxy,
)
from tests.check.mutants import forwarder
from tests.interop.running import ROOT
from tests.tools import find_tool, needs_tool

QUICK: Final = ("proxy-large", "proxy-reset-client", "proxy-upstream-refused")
QUICK_DATAGRAMS: Final = ("udp-proxy-sizes", "udp-proxy-empty", "udp-proxy-crowd")
STREAM_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
HAPROXY: Final = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen proxy
    bind 127.0.0.1:{port}
    server upstream {upstream}
"""
NGINX: Final = """
MODULE
daemon off;
USER
pid {dir}/pid;
error_log stderr;
events {}
stream {
    server { listen 127.0.0.1:{port} PROTOCOL; proxy_pass {upstream}; OPTIONS }
}
"""
HALF_CLOSES: Final = frozenset({"proxy-half-close-client", "proxy-half-close-upstream"})


def nginx(protocol: str = "", options: str = "") -> dict[str, str]:
    user = "user root;" if os.getuid() == 0 else ""
    module = f"load_module {STREAM_MODULE};"
    text = NGINX.replace("MODULE", module).replace("USER", user)
    return {"nginx.conf": text.replace("PROTOCOL", protocol).replace("OPTIONS", options)}


@dataclass(frozen=True)
class ThirdPartyProxy:
    """A proxy: the tool, its arguments, and the cases that it fails, always or sometimes."""

    tool: str
    transport: Literal["tcp", "udp"]
    arguments: tuple[str, ...]
    always_fails: frozenset[str] = frozenset()
    may_fail: frozenset[str] = frozenset()
    templates: tuple[tuple[str, str], ...] = ()

    def command(self) -> list[str]:
        """Return its command."""
        if self.tool == "bothends":
            return [*BOTHENDS_COMMAND, *self.arguments]
        return [str(find_tool(self.tool)), *self.arguments]


PROXIES: Final = {
    "impair": ThirdPartyProxy(
        "bothends", "tcp", ("impair", "tcp://127.0.0.1:{port}", "tcp://{upstream}", "--no-api")
    ),
    "impair udp": ThirdPartyProxy(
        "bothends", "udp", ("impair", "udp://127.0.0.1:{port}", "udp://{upstream}", "--no-api")
    ),
    "socat": ThirdPartyProxy(
        "socat", "tcp", ("TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1", "TCP:{upstream}"), HALF_CLOSES
    ),
    "socat -t": ThirdPartyProxy(
        "socat", "tcp", ("-t", "3600", "TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1", "TCP:{upstream}")
    ),
    "socat udp": ThirdPartyProxy(
        "socat", "udp", ("UDP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1", "UDP:{upstream}"),
        frozenset({"udp-proxy-sizes", "udp-proxy-empty"}),
        frozenset({"udp-proxy-crowd", "udp-proxy-two-clients"}),
    ),
    "haproxy": ThirdPartyProxy(
        "haproxy", "tcp", ("-W", "-f", "{dir}/haproxy.cfg"), may_fail=frozenset({"proxy-descriptor-limit"}),
        templates=(("haproxy.cfg", HAPROXY),),
    ),
    "nginx": ThirdPartyProxy(
        "nginx", "tcp", ("-p", "{dir}", "-c", "{dir}/nginx.conf", "-e", "stderr"), HALF_CLOSES,
        templates=tuple(nginx().items()),
    ),
    "nginx with proxy_half_close": ThirdPartyProxy(
        "nginx", "tcp", ("-p", "{dir}", "-c", "{dir}/nginx.conf", "-e", "stderr"),
        templates=tuple(nginx(options="proxy_half_close on;").items()),
    ),
    "nginx udp": ThirdPartyProxy(
        "nginx", "udp", ("-p", "{dir}", "-c", "{dir}/nginx.conf", "-e", "stderr"),
        frozenset({"udp-proxy-sizes", "udp-proxy-upstream-refused", "udp-proxy-upstream-later"}),
        templates=tuple(nginx("udp").items()),
    ),
}  # fmt: skip


def marks(proxy: ThirdPartyProxy) -> list[pytest.MarkDecorator]:
    if proxy.tool == "bothends":
        return []
    found = [needs_tool(proxy.tool)]
    if proxy.tool == "nginx":
        found.append(pytest.mark.skipif(not STREAM_MODULE.exists(), reason="nginx has no stream module here"))
    return found


each_forwarder = pytest.mark.parametrize("name", ["threads", "events", "datagrams"])
each_proxy = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks(each)) for name, each in PROXIES.items()]
)


def transport_of(name: str) -> Literal["tcp", "udp"]:
    return "udp" if name == "datagrams" else "tcp"


@pytest.mark.spread("name", one_in=3)
@each_forwarder
def test_forwarder_passes_basic_cases(name: str, tmp_path: Path) -> None:
    only = QUICK_DATAGRAMS if name == "datagrams" else QUICK
    result = judge_proxy(build_starter(tmp_path, forwarder(name)), transport_of(name), *only)
    assert {each.verdict for each in result.outcomes} == {Verdict.PASS}, format_failures(result)


@pytest.mark.slow
@pytest.mark.timeout(240)
@each_forwarder
def test_forwarder_passes_every_case(name: str, tmp_path: Path) -> None:
    result = judge_proxy(build_starter(tmp_path, forwarder(name)), transport_of(name))
    assert {each.verdict for each in result.outcomes} == {Verdict.PASS}, format_failures(result)


def test_impair_passes_basic_cases() -> None:
    for name, only in (("impair", QUICK[:2]), ("impair udp", QUICK_DATAGRAMS[:2])):
        proxy = PROXIES[name]
        result = judge_proxy(proxy.command(), proxy.transport, *only)
        assert {each.verdict for each in result.outcomes} == {Verdict.PASS}, format_failures(result)


@pytest.mark.slow
@pytest.mark.timeout(400)
@each_proxy
def test_third_party_proxy_fails_only_documented_cases(name: str) -> None:
    proxy = PROXIES[name]
    result = judge_proxy(proxy.command(), proxy.transport, templates=dict(proxy.templates), reload_signal=0)
    found = failed_cases(result)
    assert proxy.always_fails <= found <= proxy.always_fails | proxy.may_fail, format_failures(result)
    page = (ROOT / "docs" / "how-to" / "judge-a-proxy.md").read_text(encoding="utf-8")
    assert all(f"`{case}`" in page for case in found)


@pytest.mark.slow
def test_proxy_that_exits_after_one_client_fails_once(tmp_path: Path) -> None:
    starter = forwarder("threads")
    line = (
        "        threading.Thread(target=serve, args=(client, (host, upstream_port)), daemon=True).start()\n"
    )
    assert line in starter.text
    (tmp_path / "one.py").write_text(
        starter.text.replace(line, "        serve(client, (host, upstream_port))\n        return\n")
    )
    command = ["python3", str(tmp_path / "one.py"), "{port}", "{upstream_host}", "{upstream_port}"]
    result = judge_proxy(command, "tcp", "proxy-reset-client", "proxy-silent-client", timeout=0.5)
    [failure] = [each for each in result.outcomes if each.verdict is Verdict.FAIL]
    assert failure.likely_cause == "serves one client, and exits"


@pytest.mark.skipif(not own_network.is_available(), reason="network namespaces are not allowed here")
def test_proxy_with_fixed_ports_gets_its_own_network(tmp_path: Path) -> None:
    [*words, _, _, _] = build_starter(tmp_path, forwarder("threads"))
    proxy = ProxyUnderTest(
        proxy_contract("tcp"), [*words, "8080", "127.0.0.1", "9090"],
        "tcp://127.0.0.1:8080", "tcp://localhost:9090",
    )  # fmt: skip
    run = SuiteRun(proxy, cases("proxy"), "proxy", only=("proxy-reset-client", "proxy-restart"))
    result = asyncio.run(run.run())
    assert {each.verdict for each in result.outcomes} == {Verdict.PASS}, format_failures(result)
