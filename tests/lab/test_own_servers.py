"""Servers of bothends among the programs of a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bothends.errors import UsageError
from bothends.lab.beginnings import beginnings
from bothends.lab.own_servers import command_of, copy_packages


def test_command_line_of_serve_is_taken() -> None:
    for text in ("serve upper --engine epoll", "# a comment\nbothends serve upper\n  --engine 'epoll'\n"):
        assert command_of(text) == ["python3", "-m", "bothends", "serve", "upper", "--engine", "epoll"]


@pytest.mark.parametrize(
    "text", ["", "serve", "check server", "# serve upper", "python3 x.py", "serve 'upper"]
)
def test_other_command_lines_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        command_of(text)


def test_copy_has_what_each_engine_of_the_list_imports(tmp_path: Path) -> None:
    environment = copy_packages(tmp_path / "copy")
    assert environment == {"PYTHONPATH": str(tmp_path / "copy")}
    assert not (tmp_path / "copy" / "bothends" / "lab").exists()
    [group] = [each for each in beginnings()["groups"] if "bothends" in each["title"]]
    engines = [each["programs"][0]["text"].split()[-1] for each in group["sets"]]
    modules = ", ".join(f"bothends.engines.{each}" for each in engines)
    code = f"import {modules}, bothends.cli.main as main; print(main.__file__)"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(tmp_path))
