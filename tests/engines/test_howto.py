"""The engine of docs/how-to/add-an-engine.md: a single file that passes the contract suite."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.clients import Client  # noqa: E402
from bothends.testing.contract import EngineContract  # noqa: E402
from bothends.testing.harness import Harness  # noqa: E402
from bothends.testing.services import EchoService  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-an-engine.md"
FILE = Path(__file__).with_name("spin_engine.py")
ENGINE = "tests.engines.spin_engine:SpinEngine"


def test_page_shows_whole_file() -> None:
    assert f"```python\n{FILE.read_text()}```" in PAGE.read_text()


def test_engine_of_page_serves() -> None:
    with Harness(ENGINE, EchoService, ["tcp://127.0.0.1:0"]) as running:
        with Client(running.endpoints[0]) as client:
            assert client.request(b"hello") == b"hello"
        running.drain()
        assert running.wait_exit().problems() == []


@pytest.mark.slow
class TestEngineOfPage(EngineContract):
    engine: ClassVar[str] = ENGINE
