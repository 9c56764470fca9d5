"""`connect -z`: its output and its exit status."""

from __future__ import annotations

import json
import socket

import click
import pytest

from bothends.cli.connect.scan import format_result, show
from bothends.client.port_scan import PortResult
from bothends.errors import PortSpecError
from tests.client import peers
from tests.client.test_port_scan import LOOPBACK, listening_ports, refusing_port


def test_one_open_port(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_ports() as (port,):
        show(LOOPBACK, [str(port)])
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/tcp':<9}  open\n"


def test_one_refused_port(capsys: pytest.CaptureFixture[str]) -> None:
    with refusing_port() as port, pytest.raises(click.exceptions.Exit) as caught:
        show(LOOPBACK, [str(port)])
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/tcp':<9}  refused (ECONNREFUSED)\n"


def test_one_open_of_several_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_ports() as (port,), refusing_port() as closed:
        show(LOOPBACK, [f"{closed},{port}"])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["refused", "open"]


def test_many_ports_show_open_and_count(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_ports() as (port,):
        show(LOOPBACK, [f"{port},1-20"])
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == [LOOPBACK, f"{port}/tcp", "open"]
    assert shown.err.startswith("21 ports: ")
    assert " open" in shown.err


def test_verbose_shows_all_ports(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_ports() as (port,):
        show(LOOPBACK, [f"{port},1-20"], verbose=True)
    assert len(capsys.readouterr().out.splitlines()) == 21


def test_silent_udp_port_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    with refusing_port(socket.SOCK_DGRAM) as port, pytest.raises(click.exceptions.Exit) as caught:
        show(LOOPBACK, [str(port)], udp=True, timeout=0.05)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/udp':<9}  open or no answer\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    port = peers.closed_port(socket.SOCK_DGRAM)
    with pytest.raises(click.exceptions.Exit):
        show(LOOPBACK, [str(port)], udp=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found.pop("time_ms") >= 0
    assert found.pop("service", None) is None or isinstance(found, dict)
    assert found == {
        "address": LOOPBACK,
        "port": port,
        "transport": "udp",
        "state": "refused",
        "errno": "ECONNREFUSED",
    }


def test_service_name_is_shown() -> None:
    try:
        socket.getservbyport(80, "tcp")
    except OSError:
        pytest.skip("this machine has no services database")
    assert format_result(PortResult(80, "tcp", "open", 0, LOOPBACK, 0.1)).split() == [
        LOOPBACK,
        "80/tcp",
        "open",
        "http",
    ]


def test_invalid_ports_raise() -> None:
    with pytest.raises(PortSpecError):
        show(LOOPBACK, ["25-20"])
