"""Senders of ARQ, judged by the scenes from the server's side."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import load
from tests.check.helpers import failed_cases, format_failures, judge_client

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
