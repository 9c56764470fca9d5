"""Both generators over every transport of the servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import bothends
from bothends.bench.generators import native
from bothends.bench.generators.base import RunPlan
from bothends.bench.generators.dialer import detect_rule
from bothends.bench.load import measure, select_generator
from bothends.bench.results import Faults
from bothends.bench.schedule import Schedule
from bothends.bench.workload import numbered
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import HandshakeFailed, UnsupportedCombination
from bothends.layers import TlsSettings
from bothends.server import Server
from tests.bench.min_samples import measure_until_enough

GENERATORS = [
    "python",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(bool(native.unavailable_reason()), reason=native.unavailable_reason()),
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sockets")
    endpoints = [
        "tcp://127.0.0.1:0",
        "tcp://[::1]:0",
        "udp://127.0.0.1:0",
        f"unix://{folder}/stream",
        f"unix+dgram://{folder}/datagrams",
        f"unix+seqpacket://{folder}/packets",
        "unix://@",
        "tls://127.0.0.1:0",
        "proxyprotocol+tcp://127.0.0.1:0",
    ]
    with bothends.serve("upper", *endpoints, tls=TlsSettings(self_signed=True), engine="epoll") as server:
        yield server


def plan_for(server: Server, label: str, **more: object) -> RunPlan:
    endpoint = next(each for each in server.endpoints if str(each).startswith(label))
    tls = TlsOptions(fingerprint=server.tls_fingerprint or "") if endpoint.scheme == "tls" else None
    depth = more.get("depth", 1)
    assert isinstance(depth, int)
    workload = numbered(
        40, detect_rule(endpoint, tls=tls, timeout=5), newline=not endpoint.is_message_oriented, depth=depth
    )
    options: dict[str, object] = {"connections": 3, "timeout": 5.0, "tls": tls, **more}
    return RunPlan(endpoint, workload, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "label",
    [
        "tcp://127",
        "tcp://[::1]",
        "udp:",
        "unix:///",
        "unix+dgram:",
        "unix+seqpacket:",
        "unix://@",
        "tls:",
        "proxy",
    ],
)
@pytest.mark.parametrize("mode", ["closed", "deep", "open", "reconnect"])
def test_transport_and_mode(server: Server, generator: str, label: str, mode: str) -> None:
    options: dict[str, dict[str, object]] = {
        "closed": {},
        "deep": {"depth": 5},
        "open": {"schedule": Schedule(300, "poisson")},
        "reconnect": {"reconnect": True},
    }
    plan = plan_for(server, label, **options[mode])
    if generator == "native" and native.unsupported_reason(plan):
        with pytest.raises(UnsupportedCombination):
            select_generator("native", plan)
        assert select_generator("auto", plan).name.startswith("Python")
        return
    found = measure_until_enough(
        lambda seconds: measure(replace(plan, duration=seconds), generator=select_generator(generator, plan))
    )
    assert found.faults == Faults()
    assert found.ended == ""
    assert found.completed >= 10
    assert found.own.name == ("Python, epoll" if generator == "python" else "C, epoll")


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    ("label", "size"), [("tcp://127", 300_000), ("unix:///", 1_000_000), ("udp:", 65_507)]
)
def test_large_messages(server: Server, generator: str, label: str, size: int) -> None:
    plan = plan_for(server, label, connections=2, timeout=20.0)
    workload = numbered(size, "upper", newline=not plan.endpoint.is_message_oriented)
    plan = replace(plan, workload=workload)
    found = measure_until_enough(
        lambda seconds: measure(replace(plan, duration=seconds), generator=select_generator(generator, plan)),
        responses=4,
    )
    assert found.faults == Faults()
    assert found.uncorrected.n >= 4
    assert found.bytes_received == size * found.completed


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("generator", GENERATORS)
def test_small_messages(server: Server, generator: str, size: int) -> None:
    plan = plan_for(server, "tcp://127")
    workload = numbered(size, "upper", newline=True)
    plan = replace(plan, workload=workload)
    found = measure_until_enough(
        lambda seconds: measure(replace(plan, duration=seconds), generator=select_generator(generator, plan))
    )
    assert (found.faults, found.completed >= 10) == (Faults(), True)


def test_wrong_certificate_fingerprint_raises(server: Server) -> None:
    plan = plan_for(server, "tls:")
    other = RunPlan(plan.endpoint, plan.workload, tls=TlsOptions(fingerprint="0" * 64))
    with pytest.raises(HandshakeFailed, match="another fingerprint"):
        measure(other, generator=select_generator("python", other))


def test_native_generator_reports_unsupported_option(tmp_path: Path) -> None:
    workload = numbered(8, "echo", newline=True)
    plan = RunPlan(Endpoint.parse("tcp://127.0.0.1:1?ttl=3"), workload)
    assert native.unsupported_reason(plan)
