"""Commands of toxiproxy-cli and toxiproxy-server, answered with those of bothends."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.cli import main
from bothends.cli.impair.toxiproxy import instead_of
from tests.impair.running import echo, tcp_server
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("create -l localhost:26379 -u localhost:6379 redis", "add redis localhost:26379 localhost:6379"),
        ("new redis --listen=:1 --upstream=db:2", "add redis :1 db:2"),
        ("create", "add NAME LISTEN UPSTREAM"),
        ("delete redis", "remove redis"),
        ("delete --host http://h:8474 'my db'", "remove 'my db' --api h:8474"),
        ("ls", "list"),
        ("tog redis", "toggle redis"),
        ("ins redis", "inspect redis"),
        (
            "toxic add -t latency -n myToxic -a latency=100 -a jitter=50 redis",
            "toxic redis latency down:latency=100ms,jitter=50ms,name=myToxic",
        ),
        (
            "toxic add -t slicer -a average_size=64 -a delay=10 r",
            "toxic r slicer down:average_size=64,delay=10us",
        ),
        (
            "toxic add --upstream --type=bandwidth --attribute=rate=1 --toxicity=0.5 r",
            "toxic r bandwidth up:rate=1KB/s,toxicity=0.5",
        ),
        ("toxic add -t slow_close r", "toxic r slow-close down:"),
        ("toxic update -n latency_upstream -a jitter=25 r", "toxic r latency up:jitter=25ms"),
        ("toxic update -n slow -a rate=25 r", "toxic r TYPE down:rate=25,name=slow"),
        ("toxic delete -n slow r", "remove r slow"),
        ("-port 9999 -host 0.0.0.0", "--api tcp://0.0.0.0:9999"),
        ("-config=t.json -seed 5 -proxy-metrics", "--config t.json --seed 5"),
    ],
)
def test_command_of_toxiproxy_is_translated(typed: str, instead: str) -> None:
    assert instead_of(shlex.split(typed)) == f"bothends impair {instead}"


@pytest.mark.parametrize(
    "typed",
    ["", "list", "toggle a", "toxic add latency down:1s", "add a :1 :2", "--config a.toml --seed 5", ":1 :2"],
)
def test_command_of_bothends_is_not_mistaken_for_one_of_toxiproxy(typed: str) -> None:
    assert instead_of(typed.split()) == ""


def test_command_of_toxiproxy_prints_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["impair", "delete", "redis"]) == 2
    assert capsys.readouterr().err == (
        "bothends: that is a command of Toxiproxy; type bothends impair remove redis\n"
    )


@pytest.fixture
def api() -> Iterator[str]:
    with (
        tcp_server(echo) as server,
        Running(
            [*BOTHENDS, "impair", "tcp://127.0.0.1:0", str(server), "--api", "tcp://127.0.0.1:0"]
        ) as impair,
    ):
        yield impair.error_line(rb"  API: http://(127\.0\.0\.1:\d+)")[1].decode()


def test_verbs_control_a_running_proxy(api: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def run(*words: str) -> str:
        assert main.run(["impair", *words, "--api", api]) == 0
        return capsys.readouterr().out

    listen = json.loads(run("list", "--json"))["proxy"]["listen"]
    assert run("toggle", "proxy") == f"proxy: {listen} disabled\n"
    assert "disabled" in run("inspect", "proxy")
    assert run("toggle", "proxy") == f"proxy: {listen} listening\n"
    # What is answered to a command of Toxiproxy can be typed.
    for typed in (
        "create -l 127.0.0.1:0 -u 127.0.0.1:1 other",
        "toxic add -t latency -n mine -a latency=100 other",
        "toxic add -t latency -a latency=100 -a jitter=5 -u -tox 0.5 other",
    ):
        run(*shlex.split(instead_of(shlex.split(typed)))[2:])
    toxics = json.loads(run("list", "other", "--json"))["other"]["toxics"]
    assert [(each["name"], each["stream"], each["toxicity"], each["attributes"]) for each in toxics] == [
        ("latency_upstream", "upstream", 0.5, {"latency": 100, "jitter": 5}),
        ("mine", "downstream", 1, {"latency": 100, "jitter": 0}),
    ]
    run(*shlex.split(instead_of(shlex.split("toxic remove -n mine other")))[2:])
    run(*shlex.split(instead_of(["delete", "other"]))[2:])
    assert list(json.loads(run("list", "--json"))) == ["proxy"]
