"""The corpus of programs without a fault: no rule finds anything. See `tests/trace/faults/README.md`."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.interop.bothends_servers import BOTHENDS
from tests.trace import corpus

pytestmark = [pytest.mark.usefixtures("call_source"), pytest.mark.spread("call_source", one_in=2)]

ENGINES = ("iterative", "fork", "prefork", "threads", "pool", "select", "poll", "epoll", "asyncio", "native")
CLIENT = """
import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    stream = s.makefile("rw")
    for line in ("one", "two\\nthree", "four"):
        print(line, file=stream, flush=True)
        print([stream.readline() for _ in line.split("\\n")])
    stream.close()
"""


@pytest.mark.parametrize("case", corpus.load_cases("healthy"))
def test_healthy_program_draws_no_finding(case: corpus.CorpusCase, tmp_path: Path) -> None:
    _check_without_finding(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("service", ["echo", "upper"])
def test_healthy_engine_draws_no_finding(engine: str, service: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "client.py").write_text(CLIENT)
    server = f"{shlex.join(BOTHENDS)} serve {service} tcp://127.0.0.1:{{port}} --engine {engine}"
    _check_without_finding(corpus.CorpusCase(programs, commands={"server": server}), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("client", ["python", "c", "java"])
@pytest.mark.parametrize("server", ["python", "c", "java"])
def test_healthy_starters_draw_no_finding(server: str, client: str, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    for kind, language in (("server", server), ("client", client)):
        command = [*BOTHENDS, "new", kind, "--lang", language, str(programs)]
        subprocess.run(command, check=True, capture_output=True)
    (programs / "keyboard.txt").write_text("hello\nand again\n\x04")
    arguments = {"server": "{port}", "client": "127.0.0.1 {port}"}
    case = corpus.CorpusCase(programs, arguments=arguments)
    _check_without_finding(case, tmp_path / "run")


def _check_without_finding(case: corpus.CorpusCase, directory: Path) -> None:
    trace = corpus.run_case(case, directory)
    findings = corpus.find_all(trace)
    assert not findings, corpus.describe(findings, trace)
