"""Starters: robust ones fail nothing, minimal ones what their page says; all build without a warning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothends.errors import CannotCarry, UnknownName
from bothends.starters.writing import (
    ENGINES,
    LANGUAGES,
    ROLES,
    SERVICES,
    STYLES,
    TRANSPORTS,
    starter,
)
from tests.check.helpers import built, failed, judge, judge_client, told
from tests.interop.running import ROOT

PAGE = ROOT / "docs" / "how-to" / "from-the-slide.md"
ROW = re.compile(r"^\| (server|client) \| (\w+) \| (\w+) \| (.*) \|$", re.MULTILINE)
MINIMAL = {
    (role, transport, language): set(re.findall(r"`([\w-]+)`", cases))
    for role, transport, language, cases in ROW.findall(PAGE.read_text(encoding="utf-8"))
}


def verdict(
    folder: Path, role: str, transport: str, language: str, style: str, engine: str | None
) -> set[str]:
    command = built(folder, starter(role, language, transport, style=style, engine=engine))
    judging = judge if role == "server" else judge_client
    result = judging(command, f"upper-{transport}")
    assert result.outcomes[0].verdict.value == "PASS", told(result)
    assert style == "minimal" or not failed(result), told(result)
    return failed(result)


def test_a_robust_server_in_python_fails_nothing(tmp_path: Path) -> None:
    assert verdict(tmp_path, "server", "udp", "python", "robust", None) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("role", ROLES)
def test_a_robust_starter_fails_nothing(role: str, transport: str, language: str, tmp_path: Path) -> None:
    assert verdict(tmp_path, role, transport, language, "robust", None) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("language", "engine"), [(name, engine) for name, engines in ENGINES.items() for engine in engines[1:]]
)
@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_every_engine_fails_nothing(language: str, engine: str, transport: str, tmp_path: Path) -> None:
    assert verdict(tmp_path, "server", transport, language, "robust", engine) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("role", "transport", "language"), MINIMAL)
def test_a_minimal_starter_fails_what_its_page_says(
    role: str, transport: str, language: str, tmp_path: Path
) -> None:
    found = verdict(tmp_path, role, transport, language, "minimal", None)
    assert found == MINIMAL[role, transport, language]


def test_the_page_has_every_minimal_starter() -> None:
    assert set(MINIMAL) == {
        (role, transport, name) for role in ROLES for transport in TRANSPORTS for name in LANGUAGES
    }


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", STYLES)
def test_no_mark_of_ours_is_left_in_a_starter(language: str, style: str) -> None:
    for role in ROLES:
        for transport in TRANSPORTS:
            for service in SERVICES:
                text = starter(role, language, transport, service=service, style=style).text
                assert not re.search(r"^@(tcp|unix|upper|echo)\||\{usage\}", text, re.MULTILINE)
                assert "PORT" in text or "PATH" in text


def test_what_there_is_not_is_said() -> None:
    with pytest.raises(UnknownName, match="did you mean 'python'"):
        starter("server", "pyton", "tcp")
    with pytest.raises(UnknownName, match="there are threads, select"):
        starter("server", "python", "tcp", engine="fork")
    with pytest.raises(CannotCarry, match="robust servers on streams"):
        starter("server", "python", "udp", engine="select")
