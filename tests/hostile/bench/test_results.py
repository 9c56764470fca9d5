"""Mutated results of `bothends bench`: compared or refused with one line; never an internal error."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bothends.bench.significance import MAX_EXACT_ROUNDS, mann_whitney_p_value
from bothends.cli.main import run

SEEDS = range(8)
MUTANTS_PER_SEED = 25
EXTREMES: list[Any] = [
    0, -1, 1 << 53, 1 << 63, 10**400, 1.7e308, 1e300, 1e18, 5e-324, -1e300, "", "a\x1b[31mb", None,
    True, [], {}, [[]],
]  # fmt: skip
LATENCY = {
    "n": 1000,
    "mean_us": 90.0,
    "max_us": 300.0,
    "percentiles_us": {"p50": 80.0, "p99": 200.0},
    "histogram": "HIST",
}
ROUND = {
    "seconds": 1.0, "completed": 1000, "per_s": 1000.0, "bytes_received": 5000,
    "faults": {"lost": 2, "wrong": 0},
    "uncorrected": LATENCY, "corrected": None, "own": {"name": "native", "cpu_share": 0.5},
    "each_second": [1000],
    "server": {"cpu_share": 0.2, "memory_kib_per_connection": -1.5},
}  # fmt: skip
ENTRY = {
    "name": "native", "target": "tcp://127.0.0.1:12000", "load": {"workload": "upper", "transport": "tcp"},
    "rounds": [ROUND] * 4,
}  # fmt: skip
VALID = {
    "kind": "bothends bench", "version": 1, "made": "2026-01-01T00:00:00Z", "command": "bench",
    "machine": {"cpu": "x"},
    "entries": [ENTRY, ENTRY | {"name": "other"}],
}  # fmt: skip


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*path, key)
        yield from paths(each, (*path, key))


def mutate(document: Any, generator: random.Random) -> None:
    """Delete, replace or repeat one value, or all values of one key."""
    found = list(paths(document))
    key = generator.choice(sorted({str(path[-1]) for path in found}))
    same = [path for path in found if str(path[-1]) == key]
    for path in same if generator.random() < 0.5 else [generator.choice(same)]:
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        match generator.randrange(3):
            case 0 if isinstance(parent, dict):
                del parent[path[-1]]
                return
            case 1 if isinstance(parent, list):
                parent.extend(copy.deepcopy(parent[:1]) * generator.choice((1, 40, 1200)))
                return
            case _:
                parent[path[-1]] = generator.choice(EXTREMES)
                return


def compare(
    folder: Path, before: bytes, after: bytes, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    (folder / "before.json").write_bytes(before)
    (folder / "after.json").write_bytes(after)
    for option in ([], ["--json"]):
        status = run(["bench", "compare", str(folder / "before.json"), str(folder / "after.json"), *option])
        output, errors = capsys.readouterr()
        assert status in (0, 1, 2), errors
        assert "\x1b" not in output + errors
        assert not option or not ("NaN" in output or "Infinity" in output)
        assert (status == 2) == (not output), errors
        if status == 2:
            assert errors.count("\n") == 1
    return status, output, errors


@pytest.mark.spread("seed", one_in=4)
@pytest.mark.parametrize("seed", SEEDS)
def test_compare_mutated_results(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = random.Random(seed)
    valid = json.dumps(VALID).encode()
    for _ in range(MUTANTS_PER_SEED):
        document = copy.deepcopy(json.loads(valid))
        mutate(document, generator)
        mutant = json.dumps(document).encode()
        if generator.random() < 0.2:
            mutant = mutant[: generator.randrange(len(mutant))]
        pair = generator.choice([(mutant, valid), (valid, mutant), (mutant, mutant)])
        compare(tmp_path, *pair, capsys)


def change_rounds(**changes: Any) -> Callable[[int], dict[str, Any]]:
    return lambda number: ROUND | {name: value(number) for name, value in changes.items()}


@pytest.mark.parametrize(
    ("rounds", "count", "refusal"),
    [
        (change_rounds(per_s=lambda number: 10.0 + number), 300, ""),
        (change_rounds(per_s=lambda number: 10.0 + number), 1001, "length <= 1000"),
        (change_rounds(per_s=lambda _: 5e-324), 4, ""),
        (change_rounds(per_s=lambda _: 1.7e308), 4, "<= 1e+18"),
        (change_rounds(faults=lambda _: {"lost": 10**400}), 4, "`int`"),
        (change_rounds(faults=lambda _: {"lost": -5000}), 4, ">= 0"),
    ],
    ids=["many rounds", "too many rounds", "tiny", "infinite sum", "huge count", "negative count"],
)
def test_compare_extreme_rounds(
    rounds: Callable[[int], Any], count: int, refusal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = VALID | {"entries": [ENTRY | {"rounds": [rounds(number) for number in range(count)]}]}
    valid = VALID | {"entries": [ENTRY]}
    status, output, errors = compare(
        tmp_path, json.dumps(hostile).encode(), json.dumps(valid).encode(), capsys
    )
    assert refusal in errors
    assert (status == 2) == bool(refusal)
    assert bool(output) != bool(refusal)


def test_compare_escapes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = {"workload": "upper", "transport": "\x1b[2J"}
    hostile = json.dumps(VALID | {"entries": [ENTRY | {"name": "\x1b[31m", "load": load}]}).encode()
    compare(tmp_path, hostile, hostile, capsys)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"kind":"\\u001b"}']
)
def test_compare_refuses_other_files(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, data, json.dumps(VALID).encode(), capsys)[0] == 2


def test_approximate_p_value_is_close_to_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(1)
    for shift in (0.0, 0.3, 0.6, 1.0):
        one = [generator.gauss(0, 1) for _ in range(MAX_EXACT_ROUNDS)]
        other = [generator.gauss(shift, 1) for _ in range(MAX_EXACT_ROUNDS)]
        exact = mann_whitney_p_value(one, other)
        with monkeypatch.context() as patch:
            patch.setattr("bothends.bench.significance.MAX_EXACT_ROUNDS", MAX_EXACT_ROUNDS - 1)
            assert mann_whitney_p_value(one, other) == pytest.approx(exact, abs=0.01)
