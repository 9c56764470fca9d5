"""HAProxy in front of bothends servers, as docs/how-to/behind-haproxy.md describes."""

from __future__ import annotations

import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

import bothends
from bothends.events import Closed, Event, HandshakeCompleted, ServiceFailed
from bothends.layers import TlsSettings
from bothends.services.base import Peer
from bothends.testing.tls_client import TIMEOUT
from tests.interop.running import Running
from tests.layers.howto import PageRunner, code_blocks, commands
from tests.layers.keys import CertificateFiles
from tests.tools import find_tool, needs_tool

pytestmark = needs_tool("haproxy")


@bothends.message
def report_peer(message: bytes, peer: Peer) -> bytes:
    """Reply with the peer address and the local port."""
    return f"{peer.address} {peer.local.port}".encode()


def start_haproxy(stack: ExitStack, folder: Path, config: str, *listeners: socket.socket) -> None:
    """Run HAProxy with a configuration that refers to these sockets as `fd@`."""
    program = find_tool("haproxy")
    assert program is not None
    path = folder / "haproxy.cfg"
    path.write_text(config)
    process = subprocess.Popen(
        [program, "-db", "-f", str(path)],  # -db: in the foreground
        pass_fds=[each.fileno() for each in listeners],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait, TIMEOUT)
    stack.callback(process.kill)


def open_listener(stack: ExitStack, family: int = socket.AF_INET) -> socket.socket:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    return stack.enter_context(socket.create_server((host, 0), family=family))


def page_config(*parts: str) -> str:
    """Return the configuration blocks of the page that contain one of these strings."""
    return "\n".join(
        each for each in code_blocks("behind-haproxy.md", "haproxy") if any(p in each for p in parts)
    )


def query(port: int, host: str = "127.0.0.1") -> tuple[str, str]:
    """Return the reply of the service, and the expected one."""
    with socket.create_connection((host, port), TIMEOUT) as client:
        client.sendall(b"?\n")
        client.shutdown(socket.SHUT_WR)
        name = client.getsockname()
        return client.makefile("rb").read().decode().strip(), f"{name[0]}#{name[1]} {port}"


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_page_configuration_balances_two_servers(tmp_path: Path, option: str) -> None:
    events: list[Event] = []
    with ExitStack() as stack:
        front = open_listener(stack)
        ports = []
        for _ in range(2):
            server = bothends.serve(report_peer, "proxyprotocol+tcp://127.0.0.1:0", observe=events.append)
            ports.append(stack.enter_context(server).endpoints[0].port)
        config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
        config = config.replace("12001", str(ports[0])).replace("12002", str(ports[1]))
        start_haproxy(stack, tmp_path, config.replace("send-proxy-v2", option), front)
        for _ in range(4):
            reply, expected = query(front.getsockname()[1])
            assert reply == expected
    handshakes = [
        event for event in events if isinstance(event, HandshakeCompleted) and event.peer != event.was
    ]
    assert len(handshakes) == 4
    assert {event.agreed for event in handshakes} == {"PROXY v2" if option.endswith("v2") else "PROXY v1"}
    assert not [event for event in events if isinstance(event, ServiceFailed)]
    assert (
        len({event.connection for event in handshakes}) < 4
    )  # each server numbers its connections: both were used


def test_ipv6_client_through_ipv4_backend(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            front = open_listener(stack, socket.AF_INET6)
        except OSError:
            pytest.skip("no IPv6 here")
        server = stack.enter_context(bothends.serve(report_peer, "proxyprotocol+tcp://127.0.0.1:0"))
        config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
        config = config.replace("12001", str(server.endpoints[0].port))
        config = re.sub(r".*server two.*", "", config)
        start_haproxy(stack, tmp_path, config, front)
        reply, expected = query(front.getsockname()[1], "::1")
        assert reply == expected


def test_health_checks_are_not_failures(tmp_path: Path) -> None:
    events: list[Event] = []
    with ExitStack() as stack:
        front = open_listener(stack)
        server = bothends.serve(report_peer, "proxyprotocol+tcp://127.0.0.1:0", observe=events.append)
        port = stack.enter_context(server).endpoints[0].port
        config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
        config = re.sub(r".*server two.*", "", config.replace("12001", str(port))).replace(
            " check", " check inter 50ms"
        )
        start_haproxy(stack, tmp_path, config, front)
        reply, expected = query(front.getsockname()[1])
        assert reply == expected
        # The proxy repeats its health checks; each is a connection that ends without data.
        for _ in range(40):
            query(front.getsockname()[1])
            if any(
                isinstance(e, HandshakeCompleted) and e.agreed.endswith("without addresses") for e in events
            ):
                break
    assert not [event for event in events if isinstance(event, ServiceFailed)]
    assert [event for event in events if isinstance(event, Closed)]


def test_proxy_tls_details_are_logged(tmp_path: Path, keys: CertificateFiles) -> None:
    events: list[Event] = []
    with ExitStack() as stack:
        front, secure = open_listener(stack), open_listener(stack)
        server = bothends.serve(report_peer, "proxyprotocol+tcp://127.0.0.1:0", observe=events.append)
        port = str(stack.enter_context(server).endpoints[0].port)
        config = page_config("frontend everybody", "frontend secure").replace("site.pem", str(keys.server))
        config = config.replace(":12000", f"fd@{front.fileno()}").replace(":12443", f"fd@{secure.fileno()}")
        config = re.sub(r".*server two.*", "", config.replace("12001", port))
        start_haproxy(stack, tmp_path, config, front, secure)
        context = keys.client_context(alpn=("echo/1",))
        with (
            socket.create_connection(secure.getsockname(), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="example.org") as client,
        ):
            client.sendall(b"?\n")
            host, number = client.getsockname()
            assert client.recv(100).decode() == f"{host}#{number} {secure.getsockname()[1]}\n"
    handshakes = [e.agreed for e in events if isinstance(e, HandshakeCompleted) and "authority" in e.agreed]
    assert [each.replace("ALPN echo/1, ", "") for each in handshakes] == [
        "PROXY v2, authority example.org, TLS 1.3 at the proxy"
    ]


def test_tls_passthrough(tmp_path: Path, keys: CertificateFiles) -> None:
    events: list[Event] = []
    with ExitStack() as stack:
        front = open_listener(stack)
        server = bothends.serve(
            report_peer,
            "proxyprotocol+tls://127.0.0.1:0",
            tls=TlsSettings(certificate=keys.server),
            observe=events.append,
        )
        port = str(stack.enter_context(server).endpoints[0].port)
        config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
        config = re.sub(r".*server two.*", "", config.replace("12001", port))
        start_haproxy(stack, tmp_path, config, front)
        with (
            socket.create_connection(front.getsockname(), TIMEOUT) as plain,
            keys.client_context().wrap_socket(plain, server_hostname="example.org") as client,
        ):
            client.sendall(b"?\n")
            host, number = client.getsockname()
            assert client.recv(100).decode() == f"{host}#{number} {front.getsockname()[1]}\n"
    agreed = [e.agreed for e in events if isinstance(e, HandshakeCompleted) and e.peer != e.was]
    assert agreed == ["PROXY v2, TLS 1.3, SNI example.org"]


def test_page_commands(tmp_path: Path) -> None:
    with ExitStack() as stack, PageRunner(tmp_path) as runner:
        front = open_listener(stack)
        runner.ports["12000"] = str(front.getsockname()[1])
        for command in commands("behind-haproxy.md"):
            if command.line.startswith("bothends serve"):
                last = runner.serve(command.line)
            elif command.line.startswith("haproxy"):
                config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
                start_haproxy(stack, tmp_path, runner.substitute_ports(config), front)
            else:
                assert runner.run(command.line) == list(command.expected_output), command.line
        first: Running = runner.servers["12001"]
        first.error_line(rb'.* handshake failed: no PROXY header: it began with "hello\\n"')
        first.error_line(rb"127\.0\.0\.1#\d+ via 127\.0\.0\.1#\d+: PROXY v2")
        assert last is runner.servers["12004"]
