"""Clients of built-in contracts, judged by the scenes from the server's side."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec import structs

from bothends.check.case import Verdict
from bothends.check.contract import load
from tests.check.helpers import failed_cases, format_failures, judge_client
from tests.tools import needs_tool

ROOT = Path(__file__).resolve().parents[3]
WINDOWS = {"arq-stop-and-wait": "1", "arq-sliding-window": "3"}


def command(contract: str, mistake: str = "") -> list[str]:
    sender = str(Path(__file__).parent / "programs" / "arq_sender.py")
    words = ["env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, sender, "{port}", WINDOWS[contract]]
    return [*words, *([mistake] if mistake else [])]


@pytest.mark.parametrize("contract", WINDOWS)
def test_right_sender_passes(contract: str) -> None:
    result = judge_client(command(contract), contract)
    assert not failed_cases(result), format_failures(result)
    scenes = [each for each in load(contract).scene if each.role != "server"]
    assert len(scenes) == 2
    assert result.points == 2 + sum(len(each.bears) for each in scenes)


@pytest.mark.spread("contract", "mistake", "scene", "happened", one_in=4)
@pytest.mark.parametrize(
    ("contract", "mistake", "scene", "happened"),
    [
        pytest.param(
            "arq-stop-and-wait", "no-timeout", "sent-again", "the client sent nothing", marks=pytest.mark.slow
        ),
        ("arq-stop-and-wait", "any-ack", "sent-again", 'the client sent "READ"'),
        pytest.param(
            "arq-stop-and-wait",
            "no-timeout",
            "in-order-loss",
            "the client sent nothing",
            marks=pytest.mark.slow,
        ),
        ("arq-stop-and-wait", "any-ack", "in-order-duplicates", 'the client sent "DATA 0 b431 three"'),
        ("arq-stop-and-wait", "wrong-checksum", "in-order", 'the client sent "DATA 0 2b90 one"'),
        ("arq-sliding-window", "no-window", "a-window-of-three", 'the client sent "DATA 3 241e four"'),
        pytest.param(
            "arq-sliding-window", "no-timeout", "go-back", "the client sent nothing", marks=pytest.mark.slow
        ),
        ("arq-sliding-window", "starts-again", "go-back", 'the client sent "DATA 0 2b91 one"'),
    ],
)
def test_mistake_fails_its_scene(contract: str, mistake: str, scene: str, happened: str) -> None:
    result = judge_client(command(contract, mistake), contract, f"scene-{scene}")
    [found] = [each for each in result.outcomes if each.case == f"scene-{scene}"]
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert happened in found.happened


RESP = "scene-a-client-sets-and-gets"
RESP_OTHERS = "scene-a-client-gets-other-replies"


def resp_command(mistake: str = "") -> list[str]:
    program = str(Path(__file__).parent / "programs" / "key_value_resp_client.py")
    return [sys.executable, program, "{port}", *filter(None, [mistake])]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["redis-cli", "-p", "{port}"], id="redis-cli", marks=needs_tool("redis-cli")),
        pytest.param(resp_command(), id="own"),
    ],
)
def test_client_of_a_key_value_store_passes(command: list[str]) -> None:
    result = judge_client(command, "key-value-resp", RESP, RESP_OTHERS)
    verdicts = {each.case: each.verdict for each in result.outcomes}
    assert verdicts[RESP] is verdicts[RESP_OTHERS] is Verdict.PASS, format_failures(result)


@needs_tool("redis-cli")
@pytest.mark.slow
def test_redis_cli_passes_all() -> None:
    result = judge_client(["redis-cli", "-p", "{port}"], "key-value-resp")
    assert not failed_cases(result), format_failures(result)
    assert result.points == result.max_points == 6
    [first] = [each for each in result.outcomes if each.case == RESP]
    assert first.verdict is Verdict.PASS


@needs_tool("redis-cli")
def test_redis_cli_asks_which_commands_there_are() -> None:
    # Without the optional lines of the contract, its opening would be wrong.
    contract = load("key-value-resp")
    [scene] = [each for each in contract.scenes if each.case_id == RESP]
    required = "".join(f"{step.source}\n" for step in scene.steps)
    [spec] = [each for each in contract.scene if each.name == scene.spec.name]
    own = structs.replace(contract, scene=(structs.replace(spec, talk=required),))
    [found] = [
        each for each in judge_client(["redis-cli", "-p", "{port}"], own, RESP).outcomes if each.case == RESP
    ]
    assert found.verdict is Verdict.FAIL
    assert r'the client sent "*2\r\n$7\r\nCOMMAND' in found.happened


@pytest.mark.spread("mistake", "case", "happened", one_in=2)
@pytest.mark.parametrize(
    ("mistake", "case", "happened"),
    [
        ("inline", RESP, r'the client sent "SET fruit apple\n"'),
        ("first-line-only", RESP_OTHERS, r'it printed "ERR value is not an integer\n7\n-1\none\n'),
        ("ends-at-error", RESP_OTHERS, "the client closed the connection"),
        ("one-recv", f"{RESP}-cut", "the peer closed early"),
    ],
)
def test_mistake_of_a_client_fails(mistake: str, case: str, happened: str) -> None:
    result = judge_client(resp_command(mistake), "key-value-resp", case)
    [found] = [each for each in result.outcomes if each.case == case]
    assert found.verdict is Verdict.FAIL, format_failures(result)
    assert happened in found.happened
