"""The examples of docs/how-to/add-a-service.md work as described there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bothends.services import registry
from tests.services.scripted import MESSAGE_PEER, run_conversation

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-service.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's files, in the current directory."""
    files = re.findall(
        r"^```python\n# ((?!test)\w+\.py)\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S
    )
    assert [name for name, _ in files] == ["double.py", "tally.py"]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_guide_function(folder: Path) -> None:
    double = registry.load("double.py")
    assert double.name == registry.load("double.py:double").name == "double"
    assert run_conversation(double, [b"21\n\n4\n"]).output == b"42\n8\n"
    assert run_conversation(double, [b"21\nx\n4\n"]).output == b"42\n"
    assert double.answer(b"21", MESSAGE_PEER) == b"42"


def test_guide_conversation_and_its_test(folder: Path) -> None:
    assert run_conversation(registry.load("tally.py"), [b"hello"]).output == b"5 bytes\n"
    *_, own_test = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert "assert output(" in own_test
    exec(own_test, {})
