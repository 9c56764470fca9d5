"""Compare the native engine quiet and watched: `python -m benchmarks.watched`.

Measures one server with only problems in its log, with metrics, with limits, and with its log in a file: of
connections as JSON, or of messages too, as JSON or text. Writes watched.md. It takes ten minutes and needs an
idle machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.writing import compare
from bothends.bench import campaign
from bothends.bench.targets import BenchTarget

HERE = Path(__file__).resolve().parent
BASELINE = "quiet"

LOG = ("--log", "json", "--log-level")
VARIANTS: dict[str, tuple[str, ...]] = {
    BASELINE: ("--quiet",),
    "log of connections": (*LOG, "connections"),
    "log of messages": (*LOG, "messages"),
    "log of messages, text": ("--log", "text"),
    "metrics": ("--quiet", "--metrics", "tcp://127.0.0.1:0"),
    "limits": ("--quiet", "-m", "5000", "--per-address", "5000", "--allow", "127.0.0.0/8", "--idle", "60"),
}


def variant(name: str, folder: Path) -> BenchTarget:
    """Return a target that runs the native engine with these options, and its log in a file of `folder`."""

    def command(transport: str, function: str) -> tuple[str, tuple[str, ...]]:
        into_file = ("sh", "-c", f'exec "$@" 2>&1 >"{folder}/log"', "sh")
        words = (sys.executable, "-m", "bothends", "serve", f"{HERE / 'upper.py'}:{function}")
        arguments = (f"{transport}://127.0.0.1:0", "--engine", "native", *VARIANTS[name])
        return transport, (*into_file, *words, *arguments)

    return BenchTarget(name, (command("tcp", "chunk"), command("udp", "packet")))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watched", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--load", action="append", choices=campaign.LOAD_PROFILES)
    parser.add_argument("--only", action="append", choices=VARIANTS, help="beside the quiet one")
    given = parser.parse_args()
    names = [name for name in VARIANTS if not given.only or name in (BASELINE, *given.only)]
    settings = campaign.CampaignSettings(rounds=given.rounds, duration=given.seconds)
    with tempfile.TemporaryDirectory() as folder:
        targets = [variant(name, Path(folder)) for name in names]
        compare("watched", targets, BASELINE, given.load, settings)


if __name__ == "__main__":
    main()
