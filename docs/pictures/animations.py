"""Draw the animated pictures of the README from real runs.

    sudo .venv/bin/python -m docs.pictures.animations [hang | loss | green]...

hang.svg and loss.svg are runs of pairs in examples/lecture under `bothends trace`, drawn by it. green.svg is
a terminal: `bothends check` with a server of ten lines, and with one of `bothends new`. It needs strace, and
root for the packets of the first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from docs.pictures import recorder

HERE: Final = Path(__file__).parent
LECTURE: Final = HERE.parent.parent / "examples" / "lecture"
PYTHON: Final = "python3 -I -S"
COLUMNS: Final = 104
CASES: Final = ("one-message", "several-messages", "split-write", "half-close", "restart")


def traced(name: str, pair: str, *options: str) -> None:
    """Run a pair of examples/lecture, and draw it."""
    command = [sys.executable, "-m", "bothends", "trace", "--with", "strace", *options]
    ends = ["--server", f"{PYTHON} server.py", "--client", f"{PYTHON} client.py"]
    picture = ["--svg", str(HERE / f"{name}.svg"), "--animated"]
    subprocess.run([*command, *ends, *picture], cwd=LECTURE / pair, check=False, stdout=subprocess.DEVNULL)
    (HERE / f"{name}.svg").chmod(0o644)  # what trace writes is readable by its owner only


def hang() -> None:
    """Two ends that wait for each other."""
    traced("hang", "deadlock", "--time-limit", "4")


def loss() -> None:
    """A segment is lost on a wire, and sent again."""
    traced("loss", "loss", "--wire", "delay=20ms,loss=20%,seed=6")


def green() -> None:
    """A check that fails, and one that passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        only = " ".join(f"--only tcp-{case}" for case in CASES)
        check = f"bothends check server --contract upper-tcp {only} -- python3"
        lines: list[recorder.Line] = []
        for command, cut in (
            ("bothends new server --style minimal slide", 0),
            (f"{check} slide/server.py {{port}}", 14),
            ("bothends new server good", 0),
            (f"{check} good/server.py {{port}}", 0),
        ):
            typed = recorder.record(command, folder, COLUMNS, shown=command.replace(f"{only} ", ""))
            lines += typed[: cut or None]
        picture = recorder.render(lines, COLUMNS, "bothends check: five cases fail, and pass")
    (HERE / "green.svg").write_text(picture, encoding="utf-8")


def main() -> None:
    """Draw the named pictures, or all."""
    drawers = {"hang": hang, "loss": loss, "green": green}
    for name in sys.argv[1:] or drawers:
        drawers[name]()


if __name__ == "__main__":
    main()
