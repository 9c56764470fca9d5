"""Each built-in contract with scenes: a right program passes, and each mistake fails its scene."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import builtin_names, load
from tests.check.contracts.mutants import ARGUMENTS, CONTRACT_MUTANTS, PROGRAMS, ContractMutant
from tests.check.helpers import failed_cases, format_failures, judge

ROOT = Path(__file__).resolve().parents[3]
QUICK = {
    *("chat-own-names", "http-keep-alive-wrong-length", "udp-pinger-swaps-case"),
    *("websocket-echo-echoes-fragments", "tftp-little-endian", "arq-sliding-window-acks-any"),
}


def command(contract: str, mistake: str = "") -> list[str]:
    module = f"tests.check.contracts.programs.{PROGRAMS[contract]}"
    path = f"PYTHONPATH={ROOT}:{ROOT / 'src'}"
    words = [mistake, ARGUMENTS.get(contract, "")]
    return ["env", path, sys.executable, "-u", "-m", module, "{port}", *filter(None, words)]


@pytest.mark.slow
@pytest.mark.timeout(600)  # on a busy machine the waits of a pinger that loses datagrams are long
@pytest.mark.parametrize("contract", PROGRAMS)
def test_right_program_passes(contract: str) -> None:
    result = judge(command(contract), contract)
    assert not failed_cases(result), format_failures(result)
    assert result.points == result.max_points >= 4


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(each, marks=[] if str(each) in QUICK else pytest.mark.slow) for each in CONTRACT_MUTANTS],
    ids=str,
)
def test_mistake_fails_its_scene(mutant: ContractMutant) -> None:
    case = f"scene-{mutant.scene}"
    result = judge(command(mutant.contract, mutant.mistake), mutant.contract, case, timeout=0.5)
    [outcome] = [each for each in result.outcomes if each.case == case]
    assert outcome.verdict is Verdict.FAIL, format_failures(result)
    assert any(each in outcome.happened for each in mutant.happened.split(" | ")), outcome.happened
    assert outcome.expected.startswith(("line ", "nothing after line "))


def test_every_scene_has_a_mistake() -> None:
    found = {(each.contract, f"scene-{each.scene}") for each in CONTRACT_MUTANTS}
    for name in PROGRAMS:
        scenes = {each.case_id for each in load(name).scenes if each.spec.role != "client"}
        assert scenes <= {case for contract, case in found if contract == name}, name


def test_every_contract_with_scenes_has_a_program_and_mistakes() -> None:
    with_scenes = {name for name in builtin_names() if load(name).scene}
    assert with_scenes == set(PROGRAMS) == {each.contract for each in CONTRACT_MUTANTS}
