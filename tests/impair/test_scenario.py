"""Scenarios: parse them from the command-line form and from files, and schedule the toxics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, ConfigurationError, SystemCallFailed, ToxicError
from bothends.impair.proxies import ProxyConfig
from bothends.impair.scenario import (
    Scenario,
    ScheduledToxic,
    ToxicScheduler,
    parse_toxic,
    read_scenario,
    with_unique_names,
)
from bothends.toxics.bandwidth import Bandwidth
from bothends.toxics.latency import Latency
from bothends.toxics.loss import Loss
from bothends.toxics.placement import PlacedToxic
from bothends.toxics.stall import Stall
from tests.impair.running import RunningProxies, connect, echo, tcp_server, udp_echo_server

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


def test_read_scenario_toml(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(FULL)
    scenario = read_scenario(path)
    assert (scenario.seed, scenario.duration) == (7, 60)
    assert scenario.proxies == (
        ProxyConfig("db", Endpoint.parse("tcp://127.0.0.1:0"), Endpoint.parse("tcp://127.0.0.1:12000"), True),
        ProxyConfig("dns", Endpoint.parse("udp://127.0.0.1:0"), Endpoint.parse("udp://127.0.0.1:53"), False),
    )
    latency, *loss = scenario.scheduled
    slow = PlacedToxic("latency_downstream", "downstream", Latency(latency=50, jitter=10))
    assert latency == ScheduledToxic(slow, "db", at=5, duration=3)
    assert [each.placed.name for each in loss] == ["loss_upstream", "loss_downstream"]
    for each in loss:
        assert each.placed.toxic == Loss(probability=0.1, burst=4)
        assert each.placed.toxicity == 0.5
        assert [str(network) for network in each.placed.clients] == ["10.0.0.0/8"]


def test_read_scenario_toxiproxy_json(tmp_path: Path) -> None:
    path = tmp_path / "toxiproxy.json"
    path.write_text(
        json.dumps(
            [
                {"name": "web", "listen": "[::]:18080", "upstream": "webapp.domain:8080", "enabled": True},
                {"name": "mysql", "listen": "[::]:13306", "upstream": "database.domain:3306"},
            ]
        )
    )
    assert read_scenario(path) == Scenario(
        (
            ProxyConfig(
                "web", Endpoint.parse("tcp://:18080"), Endpoint.parse("tcp://webapp.domain:8080"), True
            ),
            ProxyConfig(
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
            [
                ScheduledToxic(
                    PlacedToxic("latency_upstream", "upstream", Latency(latency=50)), at=5, duration=3
                )
            ],
        ),
        ("loss", "down:1%,name=x", [ScheduledToxic(PlacedToxic("x", "downstream", Loss(probability=0.01)))]),
        (
            "stall",
            "1s,toxicity=0.5",
            [
                ScheduledToxic(PlacedToxic("stall_upstream", "upstream", Stall(duration=1000), 0.5)),
                ScheduledToxic(PlacedToxic("stall_downstream", "downstream", Stall(duration=1000), 0.5)),
            ],
        ),
        (
            "bandwidth",
            "name=slow,rate=1mbit",
            [
                ScheduledToxic(PlacedToxic("slow_upstream", "upstream", Bandwidth(rate=125))),
                ScheduledToxic(PlacedToxic("slow_downstream", "downstream", Bandwidth(rate=125))),
            ],
        ),
    ],
)
def test_parse_toxic(kind: str, text: str, expected: list[ScheduledToxic]) -> None:
    assert list(parse_toxic(kind, text)) == expected


@pytest.mark.parametrize(
    "text", ["5ms,at=soon", "5ms,for=-1s", "5ms,toxicity=200%", "5ms,clients=nowhere", "left:5ms"]
)
def test_parse_toxic_invalid_text_raises_toxic_error(text: str) -> None:
    with pytest.raises(ToxicError):
        list(parse_toxic("latency", text))


def test_with_unique_names_numbers_duplicates() -> None:
    duplicates = [*parse_toxic("latency", "up:5ms"), *parse_toxic("latency", "up:7ms")]
    assert [each.placed.name for each in with_unique_names(duplicates)] == [
        "latency_upstream",
        "latency_upstream_2",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "invalid TOML"),
        ("seed = " + "[" * 5000, "nested too deeply"),
        ("sead = 1", "did you mean 'seed'"),
        ('seed = "x"', "a whole number"),
        ("[proxy]\nname='a'", "write [[proxy]]"),
        ("[[proxy]]\nname='a'", "missing required field: upstream"),
        ("[[proxy]]\nname='a'\nupstream='tcp://a:1'\nlisen='x'", "did you mean 'listen'"),
        ("[[proxy]]\nname='a'\nupstream='tpc://a:1'", "did you mean 'tcp'"),
        ("[[toxic]]\ntype='latenzy'", "did you mean 'latency'"),
        ("[[toxic]]\ntype='latency'\nlatenci='5ms'", "did you mean latency?"),
        ("[[toxic]]\ntype='latency'\nlatency='5 apples'", "a time such as 50ms"),
        ("[[toxic]]\ntype='latency'\nstream='up'", "stream must be upstream or downstream"),
        ("[[toxic]]\ntype='latency'\nat='later'", "a time such as 5s"),
    ],
)
def test_read_scenario_invalid_toml_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_scenario(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[", b'{"a": 1}', b"\xff", b'[{"name": "a"}]', b"[" * 100_000, b"9" * 5000]
)
def test_read_scenario_invalid_json_raises_configuration_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "toxiproxy.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_scenario(path)


def test_read_scenario_endless_file_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="longer than 16,777,216 bytes"):
        read_scenario(Path("/dev/zero"))


def test_read_scenario_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed):
        read_scenario(tmp_path / "nosuch.toml")


def make_scheduler(running: RunningProxies, *scheduled: ScheduledToxic) -> Any:
    return running.run_on_loop(lambda: ToxicScheduler(running.loop, running.proxies, scheduled))


def test_scheduler_starts_and_stops_toxics() -> None:
    with tcp_server(echo) as server, RunningProxies() as running:
        proxy = running.proxy("tcp://127.0.0.1:0", server)
        scheduled = [
            *parse_toxic("latency", "up:1ms"),
            *parse_toxic("limit_data", "down:0,at=50ms,for=50ms"),
        ]
        with connect(proxy.listen) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            make_scheduler(running, *scheduled)
            assert [each.name for each in proxy.toxics] == ["latency_upstream"]
            running.wait_until(
                lambda: proxy.find_toxic("limit_data_downstream") is not None, "the toxic is added"
            )
            client.sendall(b"y")
            assert client.recv(1) == b""
            running.wait_until(
                lambda: proxy.find_toxic("limit_data_downstream") is None, "the toxic is removed"
            )


def test_scheduler_rejects_invalid_toxic_at_start() -> None:
    with udp_echo_server() as server, RunningProxies() as running:
        running.proxy("udp://127.0.0.1:0", server, name="one")
        with pytest.raises(ToxicError, match="no connection to reset"):
            make_scheduler(running, *parse_toxic("reset_peer", "up:0ms,at=1h"))
        running.proxy("udp://127.0.0.1:0", server, name="two")
        with pytest.raises(BothendsError, match="no proxy given; known proxies: one, two"):
            make_scheduler(running, *parse_toxic("latency", "5ms"))
        unknown = ScheduledToxic(next(parse_toxic("latency", "up:5ms")).placed, "three")
        with pytest.raises(BothendsError, match="unknown proxy 'three'"):
            make_scheduler(running, unknown)
