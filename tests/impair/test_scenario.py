"""Which toxics come when: in words and in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, ConfigurationError, SystemRefused, ToxicError
from bothends.impair.proxies import Wanted
from bothends.impair.scenario import Conductor, Planned, Scenario, from_text, read, unique
from bothends.toxics.bandwidth import Bandwidth
from bothends.toxics.latency import Latency
from bothends.toxics.loss import Loss
from bothends.toxics.placement import Spec
from bothends.toxics.stall import Stall
from tests.impair.running import Running, call, datagram_echo, echo, tcp_server

FULL = """
seed = 7
for = "1m"

[[proxy]]
name = "db"
listen = "tcp://127.0.0.1:0"
upstream = "tcp://127.0.0.1:12000"

[[proxy]]
name = "dns"
listen = "udp://127.0.0.1:0"
upstream = "udp://127.0.0.1:53"
enabled = false

[[toxic]]
type = "latency"
proxy = "db"
stream = "downstream"
latency = "50ms"
jitter = 10
at = "5s"
for = 3

[[toxic]]
type = "loss"
proxy = "dns"
probability = "10%"
burst = 4
toxicity = "50%"
clients = ["10.0.0.0/8"]
"""


def test_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(FULL)
    scenario = read(path)
    assert (scenario.seed, scenario.lasts) == (7, 60)
    assert scenario.proxies == (
        Wanted("db", Endpoint.parse("tcp://127.0.0.1:0"), Endpoint.parse("tcp://127.0.0.1:12000"), True),
        Wanted("dns", Endpoint.parse("udp://127.0.0.1:0"), Endpoint.parse("udp://127.0.0.1:53"), False),
    )
    latency, *loss = scenario.planned
    slow = Spec("latency_downstream", "downstream", Latency(latency=50, jitter=10))
    assert latency == Planned(slow, "db", at=5, lasts=3)
    assert [each.spec.name for each in loss] == ["loss_upstream", "loss_downstream"]
    for each in loss:
        assert each.spec.toxic == Loss(probability=0.1, burst=4)
        assert each.spec.toxicity == 0.5
        assert [str(network) for network in each.spec.clients] == ["10.0.0.0/8"]


def test_toxiproxys_own_configuration(tmp_path: Path) -> None:
    path = tmp_path / "toxiproxy.json"
    path.write_text(
        json.dumps(
            [
                {"name": "web", "listen": "[::]:18080", "upstream": "webapp.domain:8080", "enabled": True},
                {"name": "mysql", "listen": "[::]:13306", "upstream": "database.domain:3306"},
            ]
        )
    )
    assert read(path) == Scenario(
        (
            Wanted("web", Endpoint.parse("tcp://:18080"), Endpoint.parse("tcp://webapp.domain:8080"), True),
            Wanted(
                "mysql", Endpoint.parse("tcp://:13306"), Endpoint.parse("tcp://database.domain:3306"), True
            ),
        )
    )


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (
            "latency",
            "up:50ms,at=5s,for=3s",
            [Planned(Spec("latency_upstream", "upstream", Latency(latency=50)), at=5, lasts=3)],
        ),
        ("loss", "down:1%,name=x", [Planned(Spec("x", "downstream", Loss(probability=0.01)))]),
        (
            "stall",
            "1s,toxicity=0.5",
            [
                Planned(Spec("stall_upstream", "upstream", Stall(duration=1000), 0.5)),
                Planned(Spec("stall_downstream", "downstream", Stall(duration=1000), 0.5)),
            ],
        ),
        (
            "bandwidth",
            "name=slow,rate=1mbit",
            [
                Planned(Spec("slow_upstream", "upstream", Bandwidth(rate=125))),
                Planned(Spec("slow_downstream", "downstream", Bandwidth(rate=125))),
            ],
        ),
    ],
)
def test_words(kind: str, text: str, expected: list[Planned]) -> None:
    assert list(from_text(kind, text)) == expected


@pytest.mark.parametrize(
    "text", ["5ms,at=soon", "5ms,for=-1s", "5ms,toxicity=200%", "5ms,clients=nowhere", "left:5ms"]
)
def test_words_that_mean_nothing(text: str) -> None:
    with pytest.raises(ToxicError):
        list(from_text("latency", text))


def test_names_are_made_different() -> None:
    twice = [*from_text("latency", "up:5ms"), *from_text("latency", "up:7ms")]
    assert [each.spec.name for each in unique(twice)] == ["latency_upstream", "latency_upstream_2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", "no TOML"),
        ("sead = 1", "did you mean 'seed'"),
        ('seed = "x"', "a whole number"),
        ("[proxy]\nname='a'", "write [[proxy]]"),
        ("[[proxy]]\nname='a'", "missing required field: upstream"),
        ("[[proxy]]\nname='a'\nupstream='tcp://a:1'\nlisen='x'", "did you mean 'listen'"),
        ("[[proxy]]\nname='a'\nupstream='tpc://a:1'", "did you mean 'tcp'"),
        ("[[toxic]]\ntype='latenzy'", "did you mean 'latency'"),
        ("[[toxic]]\ntype='latency'\nlatenci='5ms'", "did you mean latency?"),
        ("[[toxic]]\ntype='latency'\nlatency='5 apples'", "a time such as 50ms"),
        ("[[toxic]]\ntype='latency'\nstream='up'", "stream is upstream or downstream"),
        ("[[toxic]]\ntype='latency'\nat='later'", "a time such as 5s"),
    ],
)
def test_what_a_file_cannot_mean_is_told_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"[", b'{"a": 1}', b"\xff", b'[{"name": "a"}]'])
def test_json_that_is_none_of_toxiproxys(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "toxiproxy.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read(path)


def test_a_file_without_an_end() -> None:
    with pytest.raises(ConfigurationError, match="longer than 16,777,216 bytes"):
        read(Path("/dev/zero"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused):
        read(tmp_path / "nosuch.toml")


def conductor(running: Running, *planned: Planned) -> Any:
    return running.do(lambda: Conductor(running.loop, running.proxies, planned))


def test_toxics_come_and_go_in_their_time() -> None:
    with tcp_server(echo) as server, Running() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        planned = [
            *from_text("latency", "up:1ms"),
            *from_text("limit_data", "down:0,at=50ms,for=50ms"),
        ]
        with call(proxy.listen) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            conductor(running, *planned)
            assert [each.name for each in proxy.specs] == ["latency_upstream"]
            running.wait_until(lambda: proxy.spec("limit_data_downstream") is not None, "it comes")
            client.sendall(b"y")
            assert client.recv(1) == b""
            running.wait_until(lambda: proxy.spec("limit_data_downstream") is None, "it goes")


def test_what_cannot_be_later_is_refused_at_once() -> None:
    with datagram_echo() as server, Running() as running:
        running.proxy("udp://127.0.0.1:0", server, name="one")
        with pytest.raises(ToxicError, match="could be reset"):
            conductor(running, *from_text("reset_peer", "up:0ms,at=1h"))
        running.proxy("udp://127.0.0.1:0", server, name="two")
        with pytest.raises(BothendsError, match="say on which proxy"):
            conductor(running, *from_text("latency", "5ms"))
        somewhere = Planned(next(from_text("latency", "up:5ms")).spec, "three")
        with pytest.raises(BothendsError, match="no proxy 'three'"):
            conductor(running, somewhere)
