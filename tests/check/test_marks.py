"""Marks: one denominator for each contract, whatever the program does; a case says whether it costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.batch.grading import BatchSettings, judging_failure
from bothends.check.case import Verdict
from bothends.check.contract import builtin_names, load, make_oracle, parse
from bothends.check.requirements import possible_points
from bothends.check.results import CaseOutcome
from bothends.check.runner import selected_cases
from bothends.check.suites.registry import SUITES, cases, suite_for
from bothends.errors import ConfigurationError
from bothends.starters.writing import make_starter
from tests.check.helpers import format_failures, judge, judge_client, write_server_script

ONLY = ("tcp-last-line", "tcp-restart", "tcp-several-messages", "tcp-binary")
PORT_OF_THE_SYSTEM = """
import socket, sys, threading
def serve(connection):
    with connection, connection.makefile("rwb") as stream:
        for line in stream:
            stream.write(line.upper())
            stream.flush()
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def totals(only: tuple[str, ...] = ONLY) -> float:
    contract = load("upper-tcp")
    asked = selected_cases(cases("tcp", contract), only)
    possible = possible_points(asked, contract, make_oracle(contract), thorough=False)
    return sum(possible.values()) + (0 if "tcp-one-message" in possible else 1)


def test_total_is_the_contracts_whatever_the_program_does(tmp_path: Path) -> None:
    robust = make_starter("server", "python", "tcp").text
    programs = {
        "robust": robust,
        "fails the first case": robust.replace(".upper()", ".lower()"),
        "does not start": "raise SystemExit(1)",
        "chooses its port": PORT_OF_THE_SYSTEM,
    }
    results = {}
    for name, text in programs.items():
        command = write_server_script(tmp_path, text)
        results[name] = judge(
            command[:-1] if name == "chooses its port" else command, "upper-tcp", *ONLY, timeout=1.0
        )
    assert {name: result.max_points for name, result in results.items()} == dict.fromkeys(programs, totals())
    assert results["robust"].points == totals(), format_failures(results["robust"])
    assert results["fails the first case"].points == results["does not start"].points == 0
    [restart] = [each for each in results["chooses its port"].outcomes if each.case == "tcp-restart"]
    assert (restart.verdict, restart.points) == (Verdict.SKIP, 1)
    assert restart.summary.endswith("cannot be restarted on the same one (costs nothing)")
    lost = [each for each in results["does not start"].outcomes if each.case == "tcp-restart"]
    assert lost[0].summary.endswith("(costs 1 point)")


def test_what_is_only_measured_has_no_points(tmp_path: Path) -> None:
    command = write_server_script(tmp_path, make_starter("server", "python", "tcp").text)
    result = judge(command, "upper-tcp", "tcp-last-line")
    [outcome] = [each for each in result.outcomes if each.case == "tcp-last-line"]
    assert (outcome.verdict, outcome.max_points) == (Verdict.INFO, 0)


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("name", builtin_names())
def test_build_that_fails_has_the_total_of_the_contract(name: str, role: str) -> None:
    contract = load(name)
    if role == "client" and contract.endless:
        pytest.skip("its clients cannot be judged")
    failed = judging_failure("ada", BatchSettings(role, name), ValueError("broken"))
    suite = suite_for(contract, "client" if role == "client" else "server")
    possible = possible_points(cases(suite, contract), contract, make_oracle(contract), thorough=False)
    assert failed.result.max_points == sum(possible.values())
    if role == "server" or contract.has_answer:
        assert failed.result.max_points >= 2
    assert (failed.result.points, failed.result.suite) == (0, suite)


def test_build_that_fails_counts_the_chosen_cases_only() -> None:
    settings = BatchSettings("server", "upper-tcp", only=("tcp-burst",))
    assert judging_failure("ada", settings, ValueError("broken")).result.max_points == 2


def test_client_without_host_argument_loses_nothing(tmp_path: Path) -> None:
    starter = make_starter("client", "python", "tcp")
    path = tmp_path / starter.file
    path.write_text(starter.text, encoding="utf-8")
    command = ["python3", str(path), "127.0.0.1", "{port}"]
    result = judge_client(command, "upper-tcp", "client-second-address")
    assert (result.points, result.max_points) == (2, 2), format_failures(result)
    assert "is not told the server's host (costs nothing)" in result.outcomes[-1].summary


WEIGHTED = """
transport = "tcp"
framing = "lines"
[answer]
service = "upper"
[weights]
tcp-one-message = 3
tcp-several-messages = { points = 2.5, reason = "The assignment asks for it." }
"""


def test_weight_has_a_reason_that_is_shown(tmp_path: Path) -> None:
    contract = parse(WEIGHTED, "w.toml", "w", tmp_path)
    command = write_server_script(tmp_path, make_starter("server", "python", "tcp").text)
    result = judge(command, contract, "tcp-several-messages")
    assert result.max_points == 5.5
    assert [each.points for each in result.outcomes] == [3, 2.5]
    assert result.outcomes[1].why.endswith("The assignment asks for it.")
    assert result.outcomes[0].stimulus == "one message"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("tcp-burst = { points = -1 }", "points"),
        ("tcp-burst = { reason = 'none' }", "missing required key `points`"),
        ("tcp-burst = { point = 1 }", "did you mean 'points'"),
    ],
)
def test_wrong_weight_is_refused(line: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=error):
        parse(WEIGHTED + line, "w.toml", "w", tmp_path)


def test_summary_says_what_a_skipped_case_costs() -> None:
    skipped = CaseOutcome("a", Verdict.SKIP, detail="no", points=0, max_points=2)
    assert skipped.summary == "no (costs 2 points)"
    assert CaseOutcome("a", Verdict.SKIP, detail="no", max_points=0).summary == "no"


def test_every_suite_has_points() -> None:
    for suite in SUITES:
        assert sum(case.graded for case in cases(suite)) > 5
