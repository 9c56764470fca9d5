"""The commands that install optional parts of bothends into the environment that runs it. Rank 0."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Literal


def install_command(extra: str) -> str:
    """Return the command that installs an extra: of make in a checkout, pipx, uv or pip."""
    requirement = shlex.quote(f"bothends[{extra}]")
    match _installer():
        case "make":
            return _make("setup")
        case "pipx":
            return f"pipx install --force {requirement}"
        case "uv":
            return f"uv tool install --force {requirement}"
        case "pip":
            return f"{_pip()} install {requirement}"


def rebuild_command() -> str:
    """Return the command that installs bothends again from its source, with the C extensions."""
    match _installer():
        case "make":
            return _make("--always-make", "setup")
        case "pipx":
            return "pipx install --force --pip-args='--no-binary bothends' bothends"
        case "uv":
            return "uv tool install --force --no-binary-package bothends bothends"
        case "pip":
            return f"{_pip()} install --force-reinstall --no-deps --no-binary bothends bothends"


def _installer() -> Literal["make", "pipx", "uv", "pip"]:
    """Return what installed bothends. pipx(1) and uv(1) mark their environments with a file."""
    prefix = Path(sys.prefix)
    if (_root() / "requirements-dev.lock").is_file():
        return "make"
    if (prefix / "pipx_metadata.json").is_file():
        return "pipx"
    return "uv" if (prefix / "uv-receipt.toml").is_file() else "pip"


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _make(*arguments: str) -> str:
    return shlex.join(["make", "-C", str(_root()), *arguments])


def _pip() -> str:
    """Return how to call this Python's pip: by its name only if PATH finds the same."""
    pip = shutil.which("pip")
    is_own = pip is not None and Path(pip).parent.resolve() == Path(sys.executable).parent.resolve()
    return "pip" if is_own else shlex.join([sys.executable, "-m", "pip"])
