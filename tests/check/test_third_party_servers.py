"""Judging third-party servers. docs/how-to/judge.md lists the cases that they do not pass.

The quick tests run the first cases of a suite; the slow ones run all of it.
"""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from bothends.check.case import Verdict
from tests.check.helpers import failed_cases, format_failures, judge
from tests.interop.running import ROOT
from tests.tools import find_tool, needs_tool

NGINX: Final = """
{user}
daemon off;
pid pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{ listen 127.0.0.1:PORT; root .; }}
}}
"""
XINETD: Final = """
service {service}
{{
    type = {type} UNLISTED
    id = {service}-{kind}
    socket_type = {kind}
    protocol = {protocol}
    wait = {wait}
    user = {user}
    bind = 127.0.0.1
    port = PORT
    {more}
}}
"""
CAT_SETTINGS: Final = (
    "server = /bin/cat\n    instances = UNLIMITED\n    per_source = UNLIMITED\n    cps = 10000 1"
)


@dataclass(frozen=True)
class ThirdPartyServer:
    """A third-party server. `configuration` is written to {dir}, with PORT replaced by its port.

    `always_fails` are the cases that it fails; `may_fail` those that it fails because of a race.
    """

    tool: str
    contract: str
    command: tuple[str, ...]
    configuration: str = ""
    always_fails: frozenset[str] = frozenset()
    may_fail: frozenset[str] = frozenset()

    def command_line(self, folder: Path) -> list[str]:
        """Return the command, with the path of its tool."""
        path = sys.executable if self.tool == "python" else find_tool(self.tool)
        words = [str(path), *self.command]
        if not self.configuration:
            return words
        template = folder / "configuration"
        template.write_text(self.configuration, encoding="utf-8")
        start = 'sed "s/PORT/$1/" "$2" >"$3/configuration"; shift 3; exec "$@"'
        return ["/bin/sh", "-c", start, "sh", "{port}", str(template), "{dir}", *words]


def user_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def xinetd(
    contract: str, service: str, socket_type: str, extra_settings: str = "", **failures: frozenset[str]
) -> ThirdPartyServer:
    datagrams = socket_type == "dgram"
    configuration = XINETD.format(
        service=service, kind=socket_type, more=extra_settings, type="" if extra_settings else "INTERNAL",
        user=user_name(),
        protocol="udp" if datagrams else "tcp", wait="yes" if datagrams else "no",
    )  # fmt: skip
    command = ("-dontfork", "-f", "{dir}/configuration", "-pidfile", "{dir}/pid")
    return ThirdPartyServer("xinetd", contract, command, configuration, **failures)


THIRD_PARTY_SERVERS: Final = {
    "ncat": ThirdPartyServer(
        "ncat", "echo-tcp", ("-l", "-k", "--exec", "/bin/cat", "127.0.0.1", "{port}"),
        may_fail=frozenset({"tcp-half-close", "tcp-large", "tcp-late-reader", "tcp-sigterm"}),
    ),
    "socat": ThirdPartyServer("socat", "echo-tcp", ("TCP-LISTEN:{port},fork,reuseaddr", "EXEC:/bin/cat")),
    "socat udp": ThirdPartyServer(
        "socat", "echo-udp", ("UDP-RECVFROM:{port},fork", "EXEC:/bin/cat"),
        always_fails=frozenset({"udp-empty", "udp-largest", "udp-source"}),
    ),
    "busybox nc": ThirdPartyServer(
        "busybox", "echo-tcp", ("nc", "-ll", "-p", "{port}", "-e", "/bin/cat"),
        always_fails=frozenset({"tcp-burst"}),
    ),
    "xinetd with cat": xinetd("echo-tcp", "echo", "stream", CAT_SETTINGS),
    "xinetd": xinetd(
        "echo-tcp", "echo", "stream", always_fails=frozenset({"tcp-crowd", "tcp-descriptors", "tcp-burst"})
    ),
    "xinetd udp": xinetd(
        "echo-udp", "echo", "dgram", always_fails=frozenset({"udp-largest"}),
        may_fail=frozenset({
            "udp-two-quick", "udp-two-clients", "udp-duplicate", "udp-out-of-order", "udp-burst",
            "udp-empty", "udp-lengths", "udp-client-gone", "udp-malformed",
        }),
    ),
    "xinetd chargen": xinetd("chargen-udp", "chargen", "dgram", always_fails=frozenset({"udp-one-message"})),
    "xinetd chargen tcp": xinetd(
        "chargen-tcp", "chargen", "stream", may_fail=frozenset({"tcp-crowd", "tcp-descriptors", "tcp-burst"})
    ),
    "http.server": ThirdPartyServer(
        "python", "http-file", ("-m", "http.server", "-d", "{dir}", "-b", "127.0.0.1", "{port}")
    ),
    "busybox httpd": ThirdPartyServer(
        "busybox", "http-file", ("httpd", "-f", "-p", "127.0.0.1:{port}", "-h", "{dir}")
    ),
    "nginx": ThirdPartyServer(
        "nginx", "http-file", ("-p", "{dir}", "-c", "configuration", "-e", "stderr"),
        NGINX.format(user=f"user {user_name()};" if os.getuid() == 0 else ""),
    ),
}  # fmt: skip
each_server = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if one.tool == "python" else needs_tool(one.tool))
        for name, one in THIRD_PARTY_SERVERS.items()
    ],
)


@pytest.mark.spread("name", one_in=3)
@each_server
def test_third_party_server_passes_basic_cases(name: str, tmp_path: Path) -> None:
    server = THIRD_PARTY_SERVERS[name]
    result = judge(server.command_line(tmp_path), server.contract, "tcp-split-write", "udp-lengths")
    assert result.counts[Verdict.PASS] or failed_cases(result) == server.always_fails, format_failures(result)
    assert failed_cases(result) <= server.always_fails | server.may_fail, format_failures(result)


@pytest.mark.slow
@pytest.mark.timeout(240)
@each_server
def test_third_party_server_fails_only_documented_cases(name: str, tmp_path: Path) -> None:
    server = THIRD_PARTY_SERVERS[name]
    result = judge(server.command_line(tmp_path), server.contract)
    assert server.always_fails <= failed_cases(result) <= server.always_fails | server.may_fail, (
        format_failures(result)
    )
    page = (ROOT / "docs" / "how-to" / "judge.md").read_text(encoding="utf-8")
    assert all(f"`{case}`" in page for case in failed_cases(result))
