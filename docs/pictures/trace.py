"""Draw docs/pictures/trace.svg from a real run of the first pair in docs/how-to/trace.md.

    sudo .venv/bin/python docs/pictures/trace.py

It needs strace, and root for the packets.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the pair under `bothends trace --svg`."""
    page = (HERE.parent / "how-to" / "trace.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for text, name in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", page, re.DOTALL):
            Path(folder, name).write_text(text, encoding="utf-8")
        python = f"{sys.executable} -I -S"
        ends = ["--server", f"{python} server.py", "--client", f"{python} client.py"]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "bothends",
                "trace",
                "--svg",
                str(HERE / "trace.svg"),
                *ends,
            ],
            cwd=folder,
            check=True,
        )


if __name__ == "__main__":
    main()
