"""open_listeners: address families, shared ports, schemes, and errors."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed, Unavailable
from bothends.sockets import open_connection, open_listeners
from tests.sockets import tools
from tests.sockets.tools import FakeResolver, needs_ipv6, needs_mptcp, needs_no_sctp, needs_vsock


def open_error(text: str, **kwargs: Any) -> SystemCallFailed:
    with pytest.raises(SystemCallFailed) as caught:
        open_listeners(Endpoint.parse(text), **kwargs)
    assert isinstance(caught.value.__cause__, OSError) or isinstance(caught.value, Unavailable)
    return caught.value


@needs_ipv6
def test_wildcard_listener_is_dual_stack() -> None:
    with tools.listening("tcp://:0") as listener:
        assert listener.socket.family == socket.AF_INET6
        assert listener.role == "listener"
        assert listener.endpoint.host == ""
        assert listener.endpoint.port == listener.address.port != 0
        assert listener.requested_endpoint == Endpoint.parse("tcp://:0")
        for host in ("127.0.0.1", "::1"):
            with open_connection(listener.endpoint.with_host(host), timeout=5) as client:
                connection, _ = listener.socket.accept()
                connection.close()
                assert client.recv(1) == b""


def test_wildcard_listener_without_ipv6_uses_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int, *args: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *args)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with tools.listening("tcp://:0") as listener:
        assert listener.socket.family == socket.AF_INET
        assert listener.endpoint.host == ""
    with pytest.raises(Unavailable, match=r"EAFNOSUPPORT.*try family=4"):
        open_listeners(Endpoint.parse("tcp://:0?family=6"))


@needs_ipv6
@pytest.mark.parametrize(
    ("text", "family", "v6only"),
    [
        ("tcp://:0", socket.AF_INET6, 0),
        ("tcp://:0?v6only=1", socket.AF_INET6, 1),
        ("tcp://:0?family=6", socket.AF_INET6, 1),
        ("tcp://[::]:0", socket.AF_INET6, 1),
        ("tcp://[::]:0?v6only=0", socket.AF_INET6, 0),
        ("udp://:0", socket.AF_INET6, 0),
        ("tcp://:0?family=4", socket.AF_INET, None),
        ("udp://0.0.0.0:0", socket.AF_INET, None),
    ],
)
def test_wildcard_listener_family_and_v6only(text: str, family: int, v6only: int | None) -> None:
    with tools.listening(text) as listener:
        assert listener.socket.family == family
        if v6only is not None:
            assert listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == v6only


@needs_ipv6
@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_listeners_of_one_host_share_a_port(scheme: str) -> None:
    listeners = open_listeners(
        Endpoint.parse(f"{scheme}://here:0"), resolver=FakeResolver("::1", "127.0.0.1")
    )
    try:
        assert [listener.endpoint.host for listener in listeners] == ["::1", "127.0.0.1"]
        (port,) = {listener.endpoint.port for listener in listeners}
        assert port
        assert [listener.address.port for listener in listeners] == [port, port]
    finally:
        for listener in listeners:
            listener.close()


def test_port_0_is_retried_when_taken_on_second_address(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[socket.socket] = []

    class TakeFirstPort(socket.socket):
        """Bind the first port that the kernel chooses on the second address before the caller does."""

        def listen(self, backlog: int = 0, /) -> None:
            super().listen(backlog)
            if not taken:
                taken.append(real_socket())
                taken[0].bind(("127.0.0.2", self.getsockname()[1]))
                taken[0].listen()

    real_socket = socket.socket
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", TakeFirstPort)
        listeners = open_listeners(
            Endpoint.parse("tcp://here:0"), resolver=FakeResolver("127.0.0.1", "127.0.0.2")
        )
    with taken[0], listeners[0], listeners[1]:
        ports = {listener.address.port for listener in listeners}
        assert len(ports) == 1
        assert taken[0].getsockname()[1] not in ports


def test_unavailable_addresses_of_host_are_skipped() -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737); 203.0.113.0/24 too.
    (listener,) = open_listeners(
        Endpoint.parse("tcp://here:0"), resolver=FakeResolver("203.0.113.1", "127.0.0.1", "203.0.113.2")
    )
    with listener:
        assert listener.endpoint.host == "127.0.0.1"
    error = open_error("tcp://here:0", resolver=FakeResolver("203.0.113.1", "203.0.113.2"))
    assert error.errno == errno.EADDRNOTAVAIL
    assert "an empty host means every interface" in str(error)


def test_bind_port_in_use_raises() -> None:
    with tools.listening("tcp://127.0.0.1:0") as listener:
        error = open_error(str(listener.endpoint))
        assert error.errno == errno.EADDRINUSE
        assert str(error).startswith(f"cannot bind {listener.endpoint}: EADDRINUSE")
        assert "port 0 lets the kernel choose" in error.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root can bind every port")
def test_bind_privileged_port_raises() -> None:
    error = open_error("tcp://127.0.0.1:1")
    assert error.errno == errno.EACCES
    assert "CAP_NET_BIND_SERVICE" in error.hint


@needs_ipv6
def test_bind_link_local_without_zone_raises() -> None:
    assert "[fe80::1%25eth0]" in open_error("tcp://[fe80::1]:0").hint


def test_reuseport_shares_a_port() -> None:
    with (
        tools.listening("tcp://127.0.0.1:0?reuseport=1") as one,
        tools.listening(str(one.endpoint)) as other,
    ):
        assert one.endpoint == other.endpoint


def test_listener_is_blocking_and_not_inheritable() -> None:
    with tools.listening("tcp://127.0.0.1:0") as listener:
        assert not os.get_inheritable(listener.fileno())
        assert listener.socket.getblocking()


def test_close_is_idempotent() -> None:
    with tools.listening("tcp://127.0.0.1:0") as listener:
        listener.close()
        listener.close()
        assert listener.fileno() == -1
        assert listener.wait_flushed(0)


def test_udp_listener() -> None:
    with tools.listening("udp://127.0.0.1:0") as listener:
        assert listener.role == "datagrams"
        assert listener.is_message_oriented
        with open_connection(listener.endpoint) as client:
            client.send(b"")
            client.send(b"a" * 65507)
            assert listener.socket.recvfrom(10) == (b"", client.getsockname())
            assert listener.socket.recv(70000) == b"a" * 65507


@needs_mptcp
def test_mptcp_listener() -> None:
    with (
        tools.listening("mptcp://127.0.0.1:0") as listener,
        open_connection(listener.endpoint, timeout=5) as client,
    ):
        connection, _ = listener.socket.accept()
        with connection:
            client.sendall(b"both")
            assert connection.recv(10) == b"both"
            assert connection.proto == client.proto == 262


@needs_no_sctp
@pytest.mark.parametrize("open_endpoint", [open_listeners, open_connection])
def test_sctp_without_kernel_support_is_unavailable(open_endpoint: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        open_endpoint(Endpoint.parse("sctp://127.0.0.1:1"))
    assert caught.value.errno == errno.EPROTONOSUPPORT
    assert caught.value.exit_status == 69
    assert "use tcp://" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


@needs_vsock
def test_vsock_port_0_is_assigned() -> None:
    with tools.listening("vsock://:0") as listener:
        assert listener.role == "listener"
        assert listener.endpoint.port not in (0, 2**32 - 1)
        assert listener.address.to_endpoint("vsock").port == listener.endpoint.port


def test_connect_systemd_endpoint_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="systemd:// is for listening only"):
        open_connection(Endpoint.parse("systemd://a"))


@pytest.mark.parametrize("start", ["tls", "proxyprotocol+tcp", "proxyprotocol+tls"])
def test_layered_schemes_open_tcp_sockets(start: str) -> None:
    with tools.listening(f"{start}://127.0.0.1:0") as one:
        assert one.socket.type == socket.SOCK_STREAM
        assert one.socket.proto == socket.IPPROTO_TCP
        assert str(one.endpoint).startswith(f"{start}://127.0.0.1:")
        assert one.endpoint.port
