"""Run the code of docs/how-to/add-a-toxic.md."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from bothends.toxics.attributes import parse_attributes
from tests.toxics.path import STREAM

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-toxic.md"


def test_add_a_toxic_guide_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    toxic, line, example = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("bothends.toxics.hiccup")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(toxic, "hiccup.py", "exec", dont_inherit=True), module.__dict__)
    assert line.strip() == f'"{module.Hiccup.type}": "{module.__name__}:Hiccup",'
    assert "assert [round(" in example
    exec(example, {})
    assert parse_attributes(module.Hiccup, "100ms,every=5") == module.Hiccup(pause=100, every=5)
    assert "stall" in module.Hiccup().unsupported_reason(STREAM)
