"""The addresses of this machine, and notes about well-known ports."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.sockets import local_addresses, port_note
from tests.sockets.tools import listening


def test_local_addresses_can_be_bound() -> None:
    addresses = local_addresses()
    assert "127.0.0.1" in addresses
    for address in addresses:
        endpoint = Endpoint("tcp", host=address, port=0)
        with listening(str(endpoint)) as listener:
            assert listener.endpoint.host == address


def test_local_addresses_order_and_zones() -> None:
    ranks = []
    for text in local_addresses():
        address = ipaddress.ip_address(text.partition("%")[0])
        assert ("%" in text) == (address.version == 6 and address.is_link_local)
        ranks.append(2 if address.is_loopback else 1 if address.is_link_local else 0)
    assert ranks == sorted(ranks)


def test_local_addresses_skip_tentative_and_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "20010db8000000000000000000000001 02 40 00 80     eth0\n"
        "20010db8000000000000000000000002 02 40 00 c0     eth0\n"
        "20010db8000000000000000000000003 02 40 00 88     eth0\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: lines)
    assert [text for text in local_addresses() if ":" in text] == ["2001:db8::1", "fe80::1%eth0"]


def service_name_or_skip(port: int, protocol: str) -> str:
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        pytest.skip("no services database here")


def test_port_note_names_registered_service() -> None:
    name = service_name_or_skip(80, "tcp")
    note = port_note(Endpoint.parse("tcp://:80"))
    assert note == f"port 80 is known as {name}: a custom protocol should not use a well-known port"
    name = service_name_or_skip(3306, "tcp")
    assert f"known as {name}" in (port_note(Endpoint.parse("tls://:3306")) or "")


def test_port_note_for_unnamed_system_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(port: int, protocol: str) -> str:
        raise OSError("port/proto not found")

    monkeypatch.setattr(socket, "getservbyport", nameless)
    assert "a system port (below 1024)" in (port_note(Endpoint.parse("udp://:1023")) or "")
    assert port_note(Endpoint.parse("udp://:1024")) is None


@pytest.mark.parametrize("text", ["tcp://:0", "vsock://:80", "unix:///a", "stdio:", "fd://3"])
def test_port_note_is_none_without_port(text: str) -> None:
    assert port_note(Endpoint.parse(text)) is None
