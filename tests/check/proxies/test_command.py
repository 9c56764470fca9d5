"""`bothends check proxy` as a command: its report, its errors, and the cases that are listed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bothends.check.suites.registry import cases
from tests.check.helpers import BOTHENDS_COMMAND
from tests.check.mutants import FORWARDERS_DIR, MUTANTS

FORWARDER = FORWARDERS_DIR / "forwarder_threads.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOTHENDS_COMMAND, "check", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_report_is_json_with_the_suite() -> None:
    command = ("python3", str(FORWARDER), "{port}", "{upstream_host}", "{upstream_port}")
    done = run("proxy", "--only", "proxy-binary", "--json", "--", *command)
    result = json.loads(done.stdout)
    assert (done.returncode, result["suite"], result["contract"]) == (0, "proxy", "tcp proxy")
    assert [each["case"] for each in result["outcomes"]] == ["proxy-relay", "proxy-binary"]


def test_template_is_filled_in_and_written(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import runpy, sys\n"
        "sys.argv[1:] = open(sys.argv[1]).read().split()\n"
        f"runpy.run_path({str(FORWARDER)!r})\n"
    )
    template = tmp_path / "proxy.conf"
    template.write_text("{port} {upstream_host} {upstream_port}\n")
    words = ("--only", "proxy-relay", "--", "python3", str(program), "{dir}/proxy.conf")
    done = run("proxy", "--template", str(template), *words)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.spread("words", "message", one_in=3)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no proxy to check"),
        (("--", "x", "{port}"), "needs {upstream_port} or {upstream}"),
        (("--", "x", "{upstream}"), "needs {port}"),
        (("--reload", "HPU", "--", "x", "{port}", "{upstream}"), "no signal 'HPU'; did you mean 'SIGHUP'"),
        (("--endpoint", "udp://127.0.0.1:9", "--upstream", "tcp://:9"), "expected tcp://"),
        (("--endpoint", "tcp://127.0.0.1:0", "--upstream", "tcp://:9"), "port is missing"),
        (("--only", "tcp-large", "--", "x", "{port}", "{upstream}"), "tcp-large is a case of suite 'tcp'"),
    ],
)
def test_usage_error_is_one_line(words: tuple[str, ...], message: str) -> None:
    done = run("proxy", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("suite", ["proxy", "udp-proxy"])
def test_every_case_is_listed_and_has_a_mutant(suite: str) -> None:
    done = run("list", suite)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [each.id for each in cases(suite)]
    assert {each.case for each in MUTANTS if each.suite == suite} == {each.id for each in cases(suite)}


def test_case_is_explained() -> None:
    done = run("explain", "proxy-deaf-client")
    assert "suite proxy: proxies of TCP streams" in done.stdout
    assert "back-pressure" in done.stdout
