"""Verdicts, expectations and permissions: pure functions and values."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from bothends.attack.attacks.registry import ATTACKS
from bothends.attack.expectation import infer_rule, parse_request
from bothends.attack.health import Health
from bothends.attack.honest import Sample
from bothends.attack.judging import Observation, judge
from bothends.attack.permission import is_wire_host, permitted_endpoint
from bothends.attack.results import AttackOutcome, AttackResult, Hold, HonestFigures, ServerFigures
from bothends.check.reports import render
from bothends.endpoints import Endpoint
from bothends.errors import UsageError

QUIET = HonestFigures(right=40, p50=0.001, p99=0.002)
RIGHT = HonestFigures(right=100, p50=0.001, p99=0.004)
HELD = Observation(QUIET, RIGHT, recovered=True, server=ServerFigures(Health(), Health()))
STORM, STARVED = ATTACKS["reset-storm"], ATTACKS["starved-descriptors"]


@pytest.mark.parametrize(
    ("seen", "hold", "reason"),
    [
        (HELD, Hold.HELD, "100 of 100"),
        (replace(HELD, attacked=replace(RIGHT, p99=0.049)), Hold.HELD, ""),  # below what a busy machine does
        (replace(HELD, attacked=replace(RIGHT, p99=0.06)), Hold.DEGRADED, "p99"),
        (replace(HELD, attacked=replace(RIGHT, p99=0.06), load=2.0), Hold.HELD, ""),  # the machine is busy
        (replace(HELD, attacked=replace(RIGHT, p99=0.06, late=0.05)), Hold.HELD, ""),  # the client was late
        (replace(HELD, quiet=replace(QUIET, p99=0.01), attacked=replace(RIGHT, p99=0.09)), Hold.HELD, ""),
        (replace(HELD, attacked=replace(RIGHT, wrong=1)), Hold.FAILED, "1 wrong answer"),
        (replace(HELD, attacked=replace(RIGHT, lost=1, unserved_share=0.01)), Hold.DEGRADED, "1 lost"),
        (replace(HELD, attacked=replace(RIGHT, lost=9, unserved_share=0.09)), Hold.FAILED, "9 lost"),
        (
            replace(HELD, attacked=replace(RIGHT, unanswered=1, unserved_share=0.01, unserved_time=0.6)),
            Hold.FAILED,
            "1 t",
        ),
        (replace(HELD, recovered=False), Hold.FAILED, "not served again"),
        (replace(HELD, ended="killed by SIGSEGV"), Hold.FAILED, "killed by SIGSEGV"),
        (replace(HELD, server=ServerFigures(Health(), Health(descriptors=9))), Hold.DEGRADED, "9 more desc"),
        (replace(HELD, server=ServerFigures(Health(), Health(descriptors=8))), Hold.HELD, ""),
        (replace(HELD, server=ServerFigures(Health(), Health(), 200 << 20)), Hold.DEGRADED, "memory grew"),
        (replace(HELD, server=ServerFigures(Health(), Health(), 0, 0.0, 0.9)), Hold.DEGRADED, "90%"),
        (replace(HELD, sigterm="it still runs"), Hold.DEGRADED, "it still runs"),
    ],
)
def test_verdict(seen: Observation, hold: Hold, reason: str) -> None:
    found = judge(seen, STORM)
    assert found.hold is hold
    assert reason in found.reason
    assert bool(found.meaning) == (hold is not Hold.HELD)


def test_without_descriptors_waiting_is_right_and_spinning_is_not() -> None:
    seen = replace(HELD, attacked=replace(RIGHT, unanswered=50, p99=0.5, unserved_share=0.5))
    assert judge(seen, STARVED).hold is Hold.HELD
    assert judge(seen, STORM).hold is Hold.FAILED
    spinning = replace(seen, server=ServerFigures(Health(), Health(), 0, 0.95))
    assert "95% of a processor" in judge(spinning, STARVED).reason


def test_new_connections_and_the_kept_one_have_shares_of_their_own() -> None:
    samples = [Sample(0, "right", 0.001, kept=True)] * 98 + [Sample(0, "unanswered", 1, kept=False)] * 2
    assert HonestFigures.of(samples).unserved_share == 1.0


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        ([b"a\n", b"a\n"], "echo"),
        ([b"A\n", b"A\n"], "upper"),
        ([b"x", b"x"], "same"),
        ([b"Date: 10:00:01 ok", b"Date: 10:00:02 ok"], "pattern"),
        ([b"x", b"y"], "any"),
        ([b""], "silent"),
    ],
)
def test_rule_of_answers(answers: list[bytes], rule: str) -> None:
    found, right = infer_rule(b"a\n", answers)
    assert found == rule
    if rule == "pattern":
        assert right.matches(b"Date: 23:59:59 ok")
        assert not right.matches(b"Date: 23:59:59 no")


def test_request_escapes() -> None:
    assert parse_request(r"GET /\r\n\r\n", stream=True) == b"GET /\r\n\r\n"
    assert parse_request(r"a\x00\xff\\", stream=True) == b"a\x00\xff\\\n"
    assert parse_request("a", stream=False) == b"a"
    with pytest.raises(UsageError):
        parse_request("", stream=False)


@pytest.mark.parametrize("text", ["tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1", "unix:/a"])
def test_loopback_is_permitted(text: str) -> None:
    permitted_endpoint(Endpoint.parse(text))


def test_mapped_address_is_the_address_it_maps() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1 is not on loopback"):
        permitted_endpoint(Endpoint.parse("tcp://[::ffff:192.0.2.1]:1"))
    found = permitted_endpoint(Endpoint.parse("tcp://192.0.2.1:1"), "192.0.2.1")
    assert found.host == "192.0.2.1"


def test_network_with_a_gateway_is_not_a_wire(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text("Iface\neth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n", encoding="ascii")
    assert not is_wire_host(ipaddress.ip_address("10.0.0.2"), routes)


@pytest.mark.parametrize("report_format", ["text", "junit", "tap", "html"])
def test_reports_of_check_show_the_outcome(report_format: str) -> None:
    outcome = AttackOutcome(attack="garbage", hold=Hold.FAILED, reason="a reason", meaning="a meaning")
    result = AttackResult(program="p", compared="c", outcomes=(outcome,), seed=1, seconds=1.0)
    text = render(result.as_suite_result(), report_format)
    assert "garbage" in text
    assert "a reason. a meaning" in text
