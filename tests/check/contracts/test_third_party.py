"""Servers that others wrote pass the built-in contracts with scenes. The slow tests play all scenes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.check.helpers import failed_cases, format_failures, judge
from tests.check.test_third_party_servers import NGINX, ThirdPartyServer, user_name
from tests.tools import needs_tool

NGIRCD: Final = """
[Global]
Name = irc.check.example
Info = check
Listen = 127.0.0.1
Ports = PORT
[Limits]
MaxConnectionsIP = 0
[Options]
DNS = no
Ident = no
PAM = no
"""


PROGRAMS: Final = Path(__file__).parent / "programs"
# The first scene of each is that of its quick test.
SERVERS: Final = (
    (
        "set-and-get",
        ThirdPartyServer(
            "redis-server", "key-value-resp",
            ("--port", "{port}", "--bind", "127.0.0.1", "--save", "", "--dir", "{dir}"),
        ),
    ),
    (
        "several-requests",
        ThirdPartyServer(
            "nginx", "http-keep-alive", ("-p", "{dir}", "-c", "configuration", "-e", "stderr"),
            NGINX.format(user=f"user {user_name()};"),
        ),
    ),
    (
        "several-requests",
        ThirdPartyServer(
            "python", "http-keep-alive",
            ("-m", "http.server", "--protocol", "HTTP/1.1", "-d", "{dir}", "-b", "127.0.0.1", "{port}"),
        ),
    ),
    ("chunks", ThirdPartyServer("node", "http-body", (str(PROGRAMS / "http_body.js"), "{port}"))),
    (
        "a-message",
        ThirdPartyServer(
            "aiosmtpd", "smtp", ("-n", "-l", "127.0.0.1:{port}", "-c", "aiosmtpd.handlers.Sink")
        ),
    ),
    ("a-channel", ThirdPartyServer("ngircd", "irc", ("-n", "-f", "{dir}/configuration"), NGIRCD)),
    (
        "an-address",
        ThirdPartyServer(
            "dnsmasq", "dns",
            (
                "-k", "--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv",
                "--no-hosts", "--addn-hosts={dir}/hosts", f"--user={user_name()}", "--pid-file=",
                "--conf-file=/dev/null", "--log-facility=-",
            ),
        ),
    ),
    (
        "several-blocks",
        ThirdPartyServer(
            "in.tftpd", "tftp",
            (
                "--listen", "--foreground", "--address", "127.0.0.1:{port}", "--user", user_name(),
                "--secure", "{dir}",
            ),
        ),
    ),
    (
        "ping-and-fragments",
        ThirdPartyServer("python", "websocket-echo", (str(PROGRAMS / "websockets_echo.py"), "{port}")),
    ),
    (
        "to-all-others",
        ThirdPartyServer(
            "python", "chat", ("-m", "bothends", "serve", "chat", "tcp://127.0.0.1:{port}")
        ),
    ),
)  # fmt: skip


def marks_for(tool: str) -> list[pytest.MarkDecorator]:
    """Return the marks that skip a test without its tool, or without root if it needs that (chroot(2))."""
    marks = [] if tool == "python" else [needs_tool(tool)]
    if tool == "in.tftpd":
        marks.append(pytest.mark.skipif(os.geteuid() != 0, reason="in.tftpd needs root"))
    return marks


each_server = pytest.mark.parametrize(
    ("first", "server"),
    [
        pytest.param(
            first, one, id=f"{one.tool}-{one.contract}",
            marks=marks_for(one.tool),
        )
        for first, one in SERVERS
    ],
)  # fmt: skip


@pytest.mark.spread("first", "server", one_in=3)
@each_server
def test_server_passes_first_scene(first: str, server: ThirdPartyServer, tmp_path: Path) -> None:
    result = judge(server.command_line(tmp_path), server.contract, f"scene-{first}")
    assert not failed_cases(result), format_failures(result)
    assert result.points == 1


@pytest.mark.slow
@each_server
def test_server_passes_all_scenes(first: str, server: ThirdPartyServer, tmp_path: Path) -> None:
    result = judge(server.command_line(tmp_path), server.contract)
    assert f"scene-{first}" in {each.case for each in result.outcomes}
    assert not failed_cases(result), format_failures(result)
    assert result.points == result.max_points >= 5
