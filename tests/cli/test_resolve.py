"""`connect --resolve`: its output, and the page that explains it."""

# ruff: noqa: E501  (lines of output)

from __future__ import annotations

import doctest
import json
import socket
import sys
import textwrap
from pathlib import Path

import pytest

from bothends.cli.connect.resolve import show
from bothends.client.resolve import HostNames
from bothends.errors import EndpointError
from tests.client.test_resolve import FakeNameService

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "names-and-byte-order.md"
little = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")


@little
def test_host_and_port(capsys: pytest.CaptureFixture[str]) -> None:
    show(["web.example", "12000"], name_service=FakeNameService())
    assert (
        capsys.readouterr().out
        == """\
host           web.example
official name  server7.example
alias          www.example
address        192.0.2.7    IPv4  private  server7.example
               2001:db8::7  IPv6  private

port      12000
known as  no service (not in the services database)

             hexadecimal  network order                                    this machine (little endian)  in the wrong order
port 12000   0x2ee0       2e e0                                            e0 2e                         57390
192.0.2.7    0xc0000207   c0 00 02 07                                      07 02 00 c0                   7.2.0.192
2001:db8::7               20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 07  the same: an array of bytes

struct sockaddr_in  family  port   address      zero
                    02 00   2e e0  c0 00 02 07  00 00 00 00 00 00 00 00

struct sockaddr_in6  family  port   flowinfo     address                                          scope id
                     0a 00   2e e0  00 00 00 00  20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 07  00 00 00 00
"""
    )


@little
def test_service(capsys: pytest.CaptureFixture[str]) -> None:
    show(["syslog"], name_service=FakeNameService())
    assert (
        capsys.readouterr().out
        == """\
service   syslog
port      514
known as  shell (tcp)
          syslog (udp)

          hexadecimal  network order  this machine (little endian)  in the wrong order
port 514  0x0202       02 02          02 02                         514
"""
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(["web.example:http"], as_json=True, name_service=FakeNameService())
    found = json.loads(capsys.readouterr().out)
    assert found["official_name"] == "server7.example"
    assert found["aliases"] == ["web.example", "www.example"]
    assert found["port"]["services"] == {"tcp": "http"}
    assert (found["port"]["network_order"], found["port"]["wrong_order"]) == ("0050", 20480)
    assert [each["family"] for each in found["addresses"]] == ["inet", "inet6"]
    assert found["addresses"][0]["network_order"] == "c0000207"
    assert found["addresses"][0]["sockaddr"]["port"] == "0050"


def test_json_of_a_port_has_no_host(capsys: pytest.CaptureFixture[str]) -> None:
    show([":80"], as_json=True, name_service=FakeNameService())
    found = json.loads(capsys.readouterr().out)
    assert (found["host"], found["addresses"], found["port"]["number"]) == (None, [], 80)


def test_numeric_skips_reverse_lookup(capsys: pytest.CaptureFixture[str]) -> None:
    show(["192.0.2.7"], numeric=True, name_service=FakeNameService())
    assert "server7" not in capsys.readouterr().out


def test_resolved_names_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile(FakeNameService):
        def reverse(self, address: str) -> HostNames | None:
            return HostNames("\x1b]0;gotcha\x07", ())

    show(["192.0.2.7"], name_service=Hostile())
    assert r"\x1b]0;gotcha\x07" in capsys.readouterr().out


def test_unknown_service_raises() -> None:
    with pytest.raises(EndpointError):
        show(["web.example", "nosuch"], name_service=FakeNameService())


@little
def test_localhost(capsys: pytest.CaptureFixture[str]) -> None:
    show(["127.0.0.1", "12000"])
    out = capsys.readouterr().out
    assert "port 12000  0x2ee0       2e e0          e0 2e                         57390" in out


class Localhost(FakeNameService):
    def reverse(self, address: str) -> HostNames | None:
        return HostNames("localhost", ())


@little
def test_documentation_matches_output(capsys: pytest.CaptureFixture[str]) -> None:
    show(["localhost", "12000"], name_service=Localhost({"localhost": ("localhost", ["127.0.0.1"])}))
    page = textwrap.dedent(
        PAGE.read_text(encoding="utf-8").split("localhost 12000\n")[1].split("\nIt takes")[0]
    )
    assert page == capsys.readouterr().out


@little
def test_documentation_statements_hold() -> None:
    try:
        socket.getservbyname("http", "tcp")
    except OSError:
        pytest.skip("this machine has no services database")
    results = doctest.testfile(str(PAGE), module_relative=False, verbose=False)
    assert results.attempted >= 8
    assert results.failed == 0
