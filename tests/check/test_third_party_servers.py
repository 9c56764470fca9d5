"""Servers that others wrote are judged: what isn't PASS is their doing, and told on docs/how-to/judge.md.

Quick tests ask the first cases of each; slow ones the whole suite.
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
from tests.check.helpers import failed, judge, told
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
CAT: Final = "server = /bin/cat\n    instances = UNLIMITED\n    per_source = UNLIMITED\n    cps = 10000 1"


@dataclass(frozen=True)
class Other:
    """A server of somebody else's. `configuration` is written to {dir}, with its port put in.

    `always` and `by_chance` are the cases that fail, the latter where two things race.
    """

    tool: str
    contract: str
    command: tuple[str, ...]
    configuration: str = ""
    always: frozenset[str] = frozenset()
    by_chance: frozenset[str] = frozenset()

    def words(self, folder: Path) -> list[str]:
        """The command, with its tool found."""
        path = sys.executable if self.tool == "python" else find_tool(self.tool)
        words = [str(path), *self.command]
        if not self.configuration:
            return words
        template = folder / "configuration"
        template.write_text(self.configuration, encoding="utf-8")
        start = 'sed "s/PORT/$1/" "$2" >"$3/configuration"; shift 3; exec "$@"'
        return ["/bin/sh", "-c", start, "sh", "{port}", str(template), "{dir}", *words]


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def xinetd(contract: str, service: str, kind: str, more: str = "", **known: frozenset[str]) -> Other:
    datagrams = kind == "dgram"
    configuration = XINETD.format(
        service=service, kind=kind, more=more, type="" if more else "INTERNAL", user=user(),
        protocol="udp" if datagrams else "tcp", wait="yes" if datagrams else "no",
    )  # fmt: skip
    command = ("-dontfork", "-f", "{dir}/configuration", "-pidfile", "{dir}/pid")
    return Other("xinetd", contract, command, configuration, **known)


OTHERS: Final = {
    "ncat": Other(
        "ncat", "echo-tcp", ("-l", "-k", "--exec", "/bin/cat", "127.0.0.1", "{port}"),
        by_chance=frozenset({"tcp-half-close", "tcp-large", "tcp-late-reader", "tcp-sigterm"}),
    ),
    "socat": Other("socat", "echo-tcp", ("TCP-LISTEN:{port},fork,reuseaddr", "EXEC:/bin/cat")),
    "socat udp": Other(
        "socat", "echo-udp", ("UDP-RECVFROM:{port},fork", "EXEC:/bin/cat"),
        always=frozenset({"udp-empty", "udp-largest", "udp-source"}),
    ),
    "busybox nc": Other(
        "busybox", "echo-tcp", ("nc", "-ll", "-p", "{port}", "-e", "/bin/cat"),
        always=frozenset({"tcp-burst"}),
    ),
    "xinetd with cat": xinetd("echo-tcp", "echo", "stream", CAT),
    "xinetd": xinetd(
        "echo-tcp", "echo", "stream", always=frozenset({"tcp-crowd", "tcp-descriptors", "tcp-burst"})
    ),
    "xinetd udp": xinetd(
        "echo-udp", "echo", "dgram", always=frozenset({"udp-largest"}),
        by_chance=frozenset({
            "udp-two-quick", "udp-two-clients", "udp-duplicate", "udp-out-of-order", "udp-burst",
            "udp-empty", "udp-lengths", "udp-client-gone", "udp-malformed",
        }),
    ),
    "xinetd chargen": xinetd("chargen-udp", "chargen", "dgram", always=frozenset({"udp-one-message"})),
    "xinetd chargen tcp": xinetd(
        "chargen-tcp", "chargen", "stream", by_chance=frozenset({"tcp-crowd", "tcp-descriptors", "tcp-burst"})
    ),
    "http.server": Other(
        "python", "http-file", ("-m", "http.server", "-d", "{dir}", "-b", "127.0.0.1", "{port}")
    ),
    "busybox httpd": Other("busybox", "http-file", ("httpd", "-f", "-p", "127.0.0.1:{port}", "-h", "{dir}")),
    "nginx": Other(
        "nginx", "http-file", ("-p", "{dir}", "-c", "configuration", "-e", "stderr"),
        NGINX.format(user=f"user {user()};" if os.getuid() == 0 else ""),
    ),
}  # fmt: skip
each = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if one.tool == "python" else needs_tool(one.tool))
        for name, one in OTHERS.items()
    ],
)


@each
def test_a_server_of_others_does_the_first_things_right(name: str, tmp_path: Path) -> None:
    other = OTHERS[name]
    result = judge(other.words(tmp_path), other.contract, "tcp-split-write", "udp-lengths")
    assert result.counts[Verdict.PASS] or failed(result) == other.always, told(result)
    assert failed(result) <= other.always | other.by_chance, told(result)


@pytest.mark.slow
@pytest.mark.timeout(240)
@each
def test_a_server_of_others_fails_what_is_told_of_it(name: str, tmp_path: Path) -> None:
    other = OTHERS[name]
    result = judge(other.words(tmp_path), other.contract)
    assert other.always <= failed(result) <= other.always | other.by_chance, told(result)
    page = (ROOT / "docs" / "how-to" / "judge.md").read_text(encoding="utf-8")
    assert all(f"`{case}`" in page for case in failed(result))
