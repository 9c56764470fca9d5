"""`bothends check` with scenes: lists, explanations, reports, and one case."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.check.helpers import BOTHENDS_COMMAND
from tests.check.scenes.test_servers import CHAT, command


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.toml").write_text(CHAT)
    return tmp_path


def run(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [*BOTHENDS_COMMAND, "check", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_list_and_explain_show_scenes(folder: Path) -> None:
    status, output = run(folder, "list", "--contract", "chat.toml")
    assert (status, "scene-names-gone" in output, "tcp-one-message" in output) == (0, True, False)
    status, output = run(folder, "explain", "scene-names", "--contract", "chat.toml")
    assert status == 0
    assert "scene 'names', 9 steps of alice, alice/2" in output
    status, output = run(folder, "explain", "scene-nams", "--contract", "chat.toml")
    assert (status, "did you mean 'scene-names'?" in output) == (2, True)


def test_failure_is_reported_with_its_line_and_all_clients(folder: Path) -> None:
    words = ["server", "--contract", "chat.toml", "--only", "scene-names"]
    status, output = run(folder, *words, "--", *command("chat.py", "no-names"))
    assert status == 1
    assert "expected  line 4: alice/2< TAKEN" in output
    assert 'alice/2    receives "WELCOME alice\\n" (14 bytes)' in output
    status, output = run(folder, *words, "--json", "--", *command("chat.py"))
    assert (status, json.loads(output)["counts"]) == (
        0,
        {"PASS": 1, "INFO": 1, "NON-STRICT": 0, "SKIP": 0, "FAIL": 0},
    )


def test_case_of_another_kind_is_refused(folder: Path) -> None:
    words = ["server", "--contract", "chat.toml", "--only"]
    status, output = run(folder, *words, "tcp-burst", "--", "true")
    assert (status, "tcp-burst needs [answer] in the contract" in output) == (2, True)
    status, output = run(folder, *words, "scene-name", "--", "true")
    assert (status, "did you mean 'scene-names'?" in output) == (2, True)


def test_contract_names_cases_of_its_scenes(folder: Path) -> None:
    (folder / "chat.toml").write_text(
        "weights = { scene-names = 3 }\nleave_out = ['scene-names-cut']\n" + CHAT
    )
    words = [
        "server",
        "--contract",
        "chat.toml",
        "--json",
        "--only",
        "scene-names",
        "--only",
        "scene-names-cut",
    ]
    status, output = run(folder, *words, "--", *command("chat.py"))
    result = json.loads(output)
    assert (status, result["points"], result["counts"]["SKIP"]) == (0, 3.0, 1)
    (folder / "chat.toml").write_text("leave_out = ['scene-nmes']\n" + CHAT)
    status, output = run(folder, *words, "--", "true")
    assert (status, "did you mean 'scene-names'?" in output) == (2, True)


def test_attack_needs_an_answer(folder: Path) -> None:
    words = ["attack", "tcp://127.0.0.1:1", "--contract", "chat.toml"]
    done = subprocess.run(
        [*BOTHENDS_COMMAND[:3], *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "has scenes only" in done.stderr, done.stderr.count("\n")) == (2, True, 1)
