"""Servers of the page and engines are measured side by side."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.lab.running import Lab, Replies, program
from tests.lab.test_judging import UPPER
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]
LOAD = {"connections": 1, "warmup": 0.1, "duration": 0.3}


def measure(lab: Lab, programs: list[dict[str, str]], **request: Any) -> Replies:
    replies: Replies = []
    deadline = time.monotonic() + 60
    with lab.connect() as websocket:
        websocket.send(json.dumps({"type": "measure", "programs": programs, **request}))
        while not replies or replies[-1]["type"] not in ("measured", "failed"):
            replies.append(json.loads(websocket.recv(deadline - time.monotonic())))
    return replies


@pytest.mark.slow
def test_server_and_engine_are_measured_in_rounds(lab: Lab) -> None:
    replies = measure(lab, [program("server", UPPER)], engines=["epoll"], load=LOAD, rounds=2)
    assert replies[0]["targets"] == ["server.py", "epoll"]
    rounds = [each for each in replies if each["type"] == "round"]
    assert sorted((each["target"], each["round"]) for each in rounds) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(each["per_s"] > 0 and not each["faults"] and not each["skipped"] for each in rounds)
    assert all(each["latency"]["p50"] <= each["latency"]["max"] for each in rounds)
    samples = [each for each in replies if each["type"] == "sample" and each["target"] == 0]
    assert samples
    assert all(0 <= each["at"] <= 0.4 for each in samples)


@pytest.mark.slow
def test_wrong_replies_and_servers_that_exit_are_said(lab: Lab) -> None:
    faulty = UPPER.replace("data.upper()", "data.upper().replace(b'7', b'8')")
    exits = program("server", "print('no')\n", "exits.py")
    replies = measure(lab, [program("server", faulty), exits], load=LOAD, rounds=1)
    rounds = {each["target"]: each for each in replies if each["type"] == "round"}
    assert "wrong" in rounds[0]["faults"]
    assert "exited before it listened" in rounds[1]["skipped"]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"engines": []}, "choose an engine"),
        ({"engines": ["none"]}, "engine"),
        ({"engines": ["os:system"]}, "engines"),
        ({"engines": ["epoll"], "rounds": 9, "load": {"duration": 10, "warmup": 5},
          "programs": [program("server", UPPER)] * 6}, "allows"),
        ({"engines": ["epoll"], "load": {"connections": 100_000}}, "connections"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(lab: Lab, request_: dict[str, Any], reason: str) -> None:
    replies = measure(lab, **{"programs": [], **request_})
    assert replies[-1]["type"] == "failed"
    assert reason in replies[-1]["text"]
