"""`bothends services` and `bothends engines`."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest

from bothends.cli import main
from bothends.engines import registry as engines
from bothends.services import registry as services


def test_every_service_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["services"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["service", *services.names()]
    assert main.run(["services", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found] == services.names()
    assert all(each["broken"] is None for each in found)


def test_broken_package_is_listed_with_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = {
        "louder": EntryPoint("louder", "bothends.services.upper:Upper", services.ENTRY_POINT_GROUP),
        "wrong": EntryPoint("wrong", "no_such_package:shout", services.ENTRY_POINT_GROUP),
    }
    monkeypatch.setattr(services, "_installed", lambda: offered)
    assert main.run(["services"]) == 0
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()}
    assert {"upper", "louder", "wrong"} <= set(rows)
    assert "No module named 'no_such_package'" in rows["wrong"]
    assert main.run(["services", "--json"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["louder"]["streams"] is True
    assert "no_such_package" in found["wrong"]["broken"]
    assert found["wrong"]["streams"] is None


def test_every_engine_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["engines", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == engines.names()
    assert main.run(["engines"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in engines.names())


def test_engine_json_keeps_the_keys_of_missing_capabilities(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["engines", "--json"]) == 0
    why_not = {each["name"]: set(each["why_not"]) for each in json.loads(capsys.readouterr().out)}
    assert why_not["prefork"] == {"posts", "turns_away", "adopts"}
