"""Programs in Go: static, with system calls of their own, and TLS of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.tools import find_tool


def build(source: str, folder: Path) -> str:
    """Compile a program of one file. Returns its path."""
    path, program = folder / "main.go", folder / "program"
    path.write_text(source)
    environment = os.environ | {
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "GO111MODULE": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    command = [find_tool("go") or "go", "build", "-o", str(program), str(path)]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    return str(program)
