"""Compare the native engine quiet and watched: `python -m benchmarks.watched`.

Measures one server with only problems in its log, with metrics, and with limits. Writes watched.md. It takes
five minutes and needs an idle machine.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

from benchmarks.writing import tables
from bothends.bench import campaign
from bothends.bench.host_info import host_info
from bothends.bench.results import VERSION, Document
from bothends.bench.targets import BenchTarget

HERE = Path(__file__).resolve().parent
BASELINE = "quiet"
LOADS = ("tcp", "depth", "reconnect")

VARIANTS: dict[str, tuple[str, ...]] = {
    BASELINE: ("--quiet",),
    "metrics": ("--quiet", "--metrics", "tcp://127.0.0.1:0"),
    "limits": ("--quiet", "-m", "5000", "--per-address", "5000", "--allow", "127.0.0.0/8", "--idle", "60"),
}


def variant(name: str) -> BenchTarget:
    """Return a target that runs the native engine with these options."""

    def command(transport: str, function: str) -> tuple[str, tuple[str, ...]]:
        words = (sys.executable, "-m", "bothends", "serve", f"{HERE / 'upper.py'}:{function}")
        return transport, (*words, f"{transport}://127.0.0.1:0", "--engine", "native", *VARIANTS[name])

    return BenchTarget(name, (command("tcp", "chunk"), command("udp", "packet")))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watched", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--load", action="append", choices=campaign.LOAD_PROFILES)
    parser.add_argument("--only", action="append", choices=VARIANTS, help="beside the quiet one")
    given = parser.parse_args()
    targets = [variant(name) for name in VARIANTS if not given.only or name in (BASELINE, *given.only)]
    profiles = [campaign.LOAD_PROFILES[name] for name in given.load or campaign.LOAD_PROFILES]
    settings = campaign.CampaignSettings(rounds=given.rounds, duration=given.seconds)

    def show_measurement(done: int, total: int, description: str) -> None:
        print(f"{done + 1} of {total}: {description}", file=sys.stderr)

    entries = campaign.run_campaign(targets, profiles, settings, show_measurement)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = Document(VERSION, now, "python -m benchmarks.watched", host_info(), entries, baseline=BASELINE)
    text = tables(document)
    if sys.argv[1:] == []:
        (HERE / "watched.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
