"""Record the traces of this folder: one for each pair of programs, from a real run.

    sudo .venv/bin/python examples/lecture/make.py [NAME]...

It needs strace, and root for the packets. Each run takes a second or two. The traces with a path between two
hosts (`loss`, `nagle`) need no root.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE = Path(__file__).parent

# The options of each trace, beside its server and client.
RUNS: Final[dict[str, list[str]]] = {
    "handshake": [],
    "half-close": [],
    "reset": [],
    "loss": ["--wire", "delay=20ms,loss=20%,seed=6"],
    "nagle": ["--wire", "delay=40ms"],
    "select": [
        "--client",
        "python3 -I -S client.py one two",
        "--client",
        "python3 -I -S client.py three four",
    ],
    "deadlock": ["--time-limit", "2"],
}


def record(name: str) -> None:
    """Run the pair of a folder under trace, and save the trace beside it."""
    clients = [] if "--client" in RUNS[name] else ["--client", "python3 -I -S client.py"]
    command = [
        sys.executable,
        "-m",
        "bothends",
        "trace",
        "--with",
        "strace",
        "--server",
        "python3 -I -S server.py",
    ]
    saved = HERE / f"{name}.trace"
    result = subprocess.run(
        [*command, *clients, *RUNS[name], "--save", str(saved)], cwd=HERE / name, check=False
    )
    if result.returncode not in (0, 124):
        sys.exit(f"{name}: exit status {result.returncode}")
    saved.chmod(0o644)  # it is readable by its owner only, because a trace may hold secrets


def main() -> None:
    """Record the named traces, or all."""
    for name in sys.argv[1:] or RUNS:
        record(name)


if __name__ == "__main__":
    main()
