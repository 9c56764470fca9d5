"""The command that installs an optional part of bothends into the environment that runs it. Rank 0."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """Return the command that installs an extra: of make in a checkout, pipx, uv or pip.

    pipx(1) and uv(1) mark the environments that they manage with a file.
    """
    requirement = shlex.quote(f"bothends[{extra}]")
    prefix = Path(sys.prefix)
    root = Path(__file__).resolve().parents[2]
    if (root / "requirements-dev.lock").is_file():
        return shlex.join(["make", "-C", str(root), "setup"])
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx install --force {requirement}"
    if (prefix / "uv-receipt.toml").is_file():
        return f"uv tool install --force {requirement}"
    pip = shutil.which("pip")
    own = pip is not None and Path(pip).parent.resolve() == Path(sys.executable).parent.resolve()
    return f"{'pip' if own else shlex.join([sys.executable, '-m', 'pip'])} install {requirement}"
