"""A short round of each fuzz target, the inputs of the corpus, and the fuzzer on targets with known bugs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.fuzz.fuzzer import CORPUS, Target, attempt, describe, fuzz, save, shrink
from tests.hostile.fuzz.mutators import mutate_json, mutate_json_lines
from tests.hostile.fuzz.targets import TARGETS

NAMES = [each.name for each in TARGETS]


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_short_round_finds_nothing(target: Target) -> None:
    report = fuzz(target, 1, runs=target.runs, source=None)
    for failure in report.failures:
        pytest.fail(describe(report, failure, save(target.name, failure.data, "failure")))
    assert report.runs == target.runs


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_input_of_the_corpus_does_not_fail(target: Target) -> None:
    accepted = [target.check(data) for data in target.corpus().values()]
    assert any(accepted), "without an accepted input, mutations reach little"


def test_corpus_has_no_other_folder() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(NAMES)


def behind_conditions(data: bytes) -> None:
    """Fail for an input that begins with "[1]", which single mutations of "x" don't make."""
    if data[:1] == b"[":
        if data[1:2] == b"1":
            if data[2:3] == b"]":
                raise KeyError("a bug")
            return
        return
    raise ValueError("no list")


def talkative(data: bytes) -> None:
    raise ValueError("two\nlines" if data else "one line")


def endless(data: bytes) -> None:
    while data:
        pass


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name in ("behind_conditions", "talkative", "endless"):
        save(name, b"", "seed", tmp_path)
        save(name, b"x" * 50, "seed", tmp_path)
    return tmp_path


def test_fuzzer_reaches_a_bug_behind_conditions_and_shrinks_its_input(corpus: Path) -> None:
    target = Target("behind_conditions", behind_conditions, (ValueError,), max_size=50)
    report = fuzz(target, 1, runs=200_000, max_failures=1, corpus=corpus, source=Path(__file__).parent)
    (failure,) = report.failures
    assert failure.where.startswith("KeyError in test_fuzz.py")
    assert failure.data == b"[1]"
    assert report.kept
    path = save(target.name, failure.data, "failure", corpus)
    assert target.corpus(corpus)[path.name] == b"[1]"
    text = describe(report, failure, path)
    assert "seed 1" in text
    assert str(path) in text


def test_same_seed_runs_same_inputs(corpus: Path) -> None:
    seen: list[list[bytes]] = []
    for _ in range(2):
        found: list[bytes] = []
        target = Target("talkative", found.append)
        fuzz(target, 7, runs=50, corpus=corpus)
        seen.append(found)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 20


def test_refusal_of_several_lines_is_a_failure() -> None:
    target = Target("talkative", talkative, (ValueError,))
    assert attempt(target, b"") is None
    failure = attempt(target, b"x" * 64)
    assert failure is not None
    assert "several lines" in failure.details
    assert len(shrink(target, failure).data) == 1


def test_endless_input_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hostile.fuzz.fuzzer.CPU_LIMIT", 0.05)
    failure = attempt(Target("endless", endless), b"x")
    assert failure is not None
    assert failure.where.startswith("TimeoutError")


@pytest.mark.slow
def test_command_saves_and_repeats(tmp_path: Path) -> None:
    """The command runs a target for a time, and one input again."""
    words = [sys.executable, "-m", "tests.hostile.fuzz"]
    done = subprocess.run(
        [*words, "--seconds", "0.2", "--seed", "3", "--target", "manifests"],
        capture_output=True, text=True, check=True, cwd=CORPUS.parents[3],
    )  # fmt: skip
    assert done.stdout.startswith("seed 3, ")
    assert "nothing failed" in done.stdout
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "own").write_text("run = 3")
    again = subprocess.run(
        [*words, "--input", str(tmp_path / "manifests" / "own")],
        capture_output=True, text=True, check=True, cwd=CORPUS.parents[3],
    )  # fmt: skip
    assert again.stdout == "refused\n"


@pytest.mark.parametrize("mutate", [mutate_json, mutate_json_lines])
def test_json_mutators_accept_any_input(mutate: object, corpus: Path) -> None:
    target = Target("talkative", lambda _: None, mutate=mutate)  # type: ignore[arg-type]
    save("talkative", b"[" * 5000, "seed", corpus)
    save("talkative", b'{"a": [1, {"b": null}]}\n\n{}\n', "seed", corpus)
    assert fuzz(target, 1, runs=300, corpus=corpus).runs == 300
