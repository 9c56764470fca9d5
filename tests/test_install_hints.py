"""The command that installs an extra, for each way in which bothends is installed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from bothends import install_hints

ROOT = Path(__file__).resolve().parents[1]


def test_checkout_names_make() -> None:
    assert shlex.split(install_hints.install_command("plots")) == ["make", "-C", str(ROOT), "setup"]
    assert "--always-make" in install_hints.rebuild_command()


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("pipx_metadata.json", "pipx install --force 'bothends[plots]'"),
        ("uv-receipt.toml", "uv tool install --force 'bothends[plots]'"),
        ("bin/pip", "pip install 'bothends[plots]'"),
        ("", "{python} -m pip install 'bothends[plots]'"),
    ],
)
def test_installed_names_own_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str, expected: str
) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    monkeypatch.setattr(install_hints, "__file__", str(tmp_path / "lib/bothends/install_hints.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(python.parent))
    if marker:
        (tmp_path / marker).touch(mode=0o755)
    assert install_hints.install_command("plots") == expected.format(python=python)
    assert install_hints.rebuild_command().split()[:2] == expected.format(python=python).split()[:2]
    assert "no-binary" in install_hints.rebuild_command()
