"""Starters: robust ones pass all cases, minimal ones fail the documented ones, all build without warnings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothends.errors import UnknownName, UnsupportedCombination
from bothends.starters.writing import (
    ENGINES,
    LANGUAGES,
    ROLES,
    SERVICES,
    STYLES,
    TRANSPORTS,
    make_starter,
    select_lines,
)
from tests.check.helpers import build_starter, failed_cases, format_failures, judge, judge_client
from tests.interop.running import ROOT

PAGE = ROOT / "docs" / "how-to" / "from-the-slide.md"
ROW = re.compile(r"^\| (server|client) \| (\w+) \| (\w+) \| (.*) \|$", re.MULTILINE)
DOCUMENTED_FAILURES = {
    (role, transport, language): set(re.findall(r"`([\w-]+)`", cases))
    for role, transport, language, cases in ROW.findall(PAGE.read_text(encoding="utf-8"))
}


def judge_starter(
    folder: Path, role: str, transport: str, language: str, style: str, engine: str | None
) -> set[str]:
    command = build_starter(folder, make_starter(role, language, transport, style=style, engine=engine))
    judge_program = judge if role == "server" else judge_client
    result = judge_program(command, f"upper-{transport}")
    assert result.outcomes[0].verdict.value == "PASS", format_failures(result)
    assert style == "minimal" or not failed_cases(result), format_failures(result)
    return failed_cases(result)


def test_robust_python_server_fails_nothing(tmp_path: Path) -> None:
    assert judge_starter(tmp_path, "server", "udp", "python", "robust", None) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("role", ROLES)
def test_robust_starter_fails_nothing(role: str, transport: str, language: str, tmp_path: Path) -> None:
    assert judge_starter(tmp_path, role, transport, language, "robust", None) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("language", "engine"), [(name, engine) for name, engines in ENGINES.items() for engine in engines[1:]]
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_robust_starter_with_other_engine_fails_nothing(
    language: str, engine: str, transport: str, tmp_path: Path
) -> None:
    assert judge_starter(tmp_path, "server", transport, language, "robust", engine) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("role", "transport", "language"), DOCUMENTED_FAILURES)
def test_minimal_starter_fails_documented_cases(
    role: str, transport: str, language: str, tmp_path: Path
) -> None:
    found = judge_starter(tmp_path, role, transport, language, "minimal", None)
    assert found == DOCUMENTED_FAILURES[role, transport, language]


def test_docs_list_every_minimal_starter() -> None:
    assert set(DOCUMENTED_FAILURES) == {
        (role, transport, name) for role in ROLES for transport in TRANSPORTS for name in LANGUAGES
    }


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", STYLES)
def test_starter_has_no_leftover_template_markers(language: str, style: str) -> None:
    for role in ROLES:
        for transport in TRANSPORTS:
            for service in SERVICES:
                text = make_starter(role, language, transport, service=service, style=style).text
                assert not re.search(r"^@(tcp|unix|upper|echo)\||\{usage\}", text, re.MULTILINE)
                assert "PORT" in text or "PATH" in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", STYLES)
def test_usage_of_a_starter_has_its_arguments_in_order(language: str, style: str) -> None:
    client = make_starter("client", language, "tcp", style=style)
    assert client.run[-2:] == ("{host}", "{port}")
    assert "HOST PORT" in client.text
    server = make_starter("server", language, "tcp", style=style)
    assert server.run[-1] == "{port}"
    assert "HOST" not in server.text
    assert make_starter("server", language, "unix", style=style).run[-1] == "{path}"


def test_lines_of_other_options_are_left_out() -> None:
    template = "common\n@tcp|  a socket\n@unix|  a path\nend\n"
    assert select_lines(template, {"tcp"}) == "common\n  a socket\nend\n"
    assert select_lines(template, {"unix"}) == "common\n  a path\nend\n"


def test_starter_with_unknown_option_raises() -> None:
    with pytest.raises(UnknownName, match="did you mean 'python'"):
        make_starter("server", "pyton", "tcp")
    with pytest.raises(UnknownName, match="use threads, select"):
        make_starter("server", "python", "tcp", engine="fork")
    with pytest.raises(UnsupportedCombination, match="robust stream servers"):
        make_starter("server", "python", "udp", engine="select")
