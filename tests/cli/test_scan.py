"""`-z` as it is shown, and what it leaves with."""

from __future__ import annotations

import json
import socket

import click
import pytest

from bothends.cli.connect.scan import line_for, show
from bothends.client.port_scan import Result
from bothends.errors import PortsError
from tests.client import peers
from tests.client.test_port_scan import HERE, listening, taken


def test_one_open_port(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (port,):
        show(HERE, [str(port)])
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/tcp':<9}  open\n"


def test_one_refused_port(capsys: pytest.CaptureFixture[str]) -> None:
    with taken() as port, pytest.raises(click.exceptions.Exit) as caught:
        show(HERE, [str(port)])
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/tcp':<9}  refused (ECONNREFUSED)\n"


def test_one_of_several_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (port,), taken() as closed:
        show(HERE, [f"{closed},{port}"])
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == ["refused", "open"]


def test_of_many_only_the_open_ones_and_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (port,):
        show(HERE, [f"{port},1-20"])
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == [HERE, f"{port}/tcp", "open"]
    assert shown.err.startswith("21 ports: ")
    assert " open" in shown.err


def test_verbose_shows_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as (port,):
        show(HERE, [f"{port},1-20"], verbose=True)
    assert len(capsys.readouterr().out.splitlines()) == 21


def test_silence_over_udp_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with taken(socket.SOCK_DGRAM) as port, pytest.raises(click.exceptions.Exit) as caught:
        show(HERE, [str(port)], udp=True, timeout=0.05)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().out == f"127.0.0.1  {f'{port}/udp':<9}  open or no answer\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    port = peers.closed_port(socket.SOCK_DGRAM)
    with pytest.raises(click.exceptions.Exit):
        show(HERE, [str(port)], udp=True, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found.pop("time_ms") >= 0
    assert found.pop("service", None) is None or isinstance(found, dict)
    assert found == {
        "address": HERE,
        "port": port,
        "transport": "udp",
        "state": "refused",
        "errno": "ECONNREFUSED",
    }


def test_the_service_stands_beside_its_port() -> None:
    try:
        socket.getservbyport(80, "tcp")
    except OSError:
        pytest.skip("this machine has no services database")
    assert line_for(Result(80, "tcp", "open", 0, HERE, 0.1)).split() == [HERE, "80/tcp", "open", "http"]


def test_nonsense_goes_to_the_caller() -> None:
    with pytest.raises(PortsError):
        show(HERE, ["25-20"])
