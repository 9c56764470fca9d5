"""Compare the event loops with uvloop's bare Protocol: `python -m benchmarks.loops`.

Measures the engines epoll, uvloop and native with `--quiet` and the service upper, and beside them the least
that a server in Python does on epoll (least_epoll.py). Writes loops.md. It takes three minutes and needs an
idle machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.writing import compare
from bothends.bench import campaign
from bothends.bench.targets import BenchTarget, reference_servers

HERE = Path(__file__).resolve().parent
BASELINE = "uvloop-protocol"
LOADS = ("fifty", "thousand", "reconnect")
ENGINES = ("epoll", "uvloop", "native")
LEAST = BenchTarget("least in Python", (("tcp", (sys.executable, str(HERE / "least_epoll.py"))),))


def engine(name: str) -> BenchTarget:
    """Return a target that runs an engine, with nothing but problems in its log."""
    words = (sys.executable, "-m", "bothends", "serve", "--quiet", "upper", "tcp://127.0.0.1:0")
    return BenchTarget(name, (("tcp", (*words, "--engine", name)),))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--load", action="append", choices=LOADS, help="measure only these loads")
    given = parser.parse_args()
    targets = [each for each in reference_servers() if each.name == BASELINE]
    targets += [*map(engine, ENGINES), LEAST]
    settings = campaign.CampaignSettings(rounds=given.rounds, duration=given.seconds)
    compare("loops", targets, BASELINE, given.load or LOADS, settings)


if __name__ == "__main__":
    main()
