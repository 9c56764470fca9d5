"""EADDRINUSE names the process that has the port or the socket file."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from bothends.cli import main
from bothends.cli.port_holders import find_holder, with_holder
from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed, Unavailable
from tests.cli.test_serve import SERVE
from tests.interop.running import Running

ME = f"[{os.getpid()}] has it: "


def test_tcp_listener_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "", "localhost"):
            holder = find_holder(Endpoint("tcp", host=host, port=port))
            assert holder.endswith(f"{ME}tcp LISTEN 127.0.0.1:{port}")
        assert find_holder(Endpoint("tls", host="127.0.0.1", port=port))
        assert not find_holder(Endpoint("tcp", host="127.0.0.2", port=port))
        assert not find_holder(Endpoint("udp", host="127.0.0.1", port=port))


def test_udp_socket_is_named() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::", 0))
        port = taken.getsockname()[1]
        assert find_holder(Endpoint("udp", host="127.0.0.1", port=port)).endswith(f"{ME}udp6 [::]:{port}")


def test_unix_socket_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert find_holder(Endpoint("unix", path=str(path))).endswith(f"{ME}unix stream LISTEN {path}")


def test_other_errors_are_unchanged() -> None:
    for error in (
        SystemCallFailed("bind", "tcp://127.0.0.1:1", errno.EACCES, "a hint"),
        SystemCallFailed("bind", "tcp://127.0.0.2:1", errno.EADDRINUSE, "a hint"),
        SystemCallFailed("bind", "not an endpoint", errno.EADDRINUSE),
        Unavailable("run", "strace"),
    ):
        assert with_holder(error) is error


def test_command_line_prints_the_holder(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main.run(["serve", "upper", f"tcp://127.0.0.1:{port}"]) == 1
    message = capsys.readouterr().err
    assert f"{ME}tcp LISTEN 127.0.0.1:{port}; port 0 lets the kernel choose a free one" in message
    assert message.count("\n") == 1


def test_bothends_itself_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with Running([*SERVE, "upper", path]) as server:
        server.error_line(rb"  engine .*")
        with Running([*SERVE, "upper", path]) as second:
            assert second.wait() == 1
            second.error_line(
                rb"bothends: cannot bind .*\[%d\] has it: unix stream LISTEN .*" % server.process.pid
            )
        assert server.stop() == 0
