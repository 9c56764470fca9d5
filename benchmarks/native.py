"""Compare the native engine with an epoll server in C and uvloop's Protocol: `python -m benchmarks.native`.

Measures the engine's variants: on io_uring and on epoll, with a call per chunk and per line, and with 50 us
of busy polling. Writes native.md. It takes ten minutes and needs an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.writing import compare
from bothends.bench import campaign
from bothends.bench.targets import BenchTarget, reference_servers

HERE = Path(__file__).resolve().parent
BASELINE = "c-epoll"
REFERENCES = (BASELINE, "c-uring", "uvloop-protocol")

VARIANTS = {
    "native": ("chunk", "io_uring", ()),
    "native on epoll": ("chunk", "epoll", ()),
    "native, per line": ("line", "io_uring", ()),
    "native, busy polling": ("chunk", "io_uring", ("--busy-poll", "0.00005")),
}


def variant(name: str) -> BenchTarget:
    """Return a target that runs a variant of the native engine."""
    function, backend, options = VARIANTS[name]

    def command(transport: str, function: str) -> tuple[str, tuple[str, ...]]:
        words = (sys.executable, "-m", "bothends", "serve", "--quiet", f"{HERE / 'upper.py'}:{function}")
        arguments = (f"{transport}://127.0.0.1:0", "--engine", "native", *options)
        return transport, ("env", f"BOTHENDS_NATIVE={backend}", *words, *arguments)

    return BenchTarget(name, (command("tcp", function), command("udp", "packet")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument(
        "--load", action="append", choices=campaign.LOAD_PROFILES, help="measure only these loads"
    )
    parser.add_argument(
        "--only", default="", help="servers whose name contains one of these, comma-separated"
    )
    arguments = parser.parse_args()
    targets = [each for each in reference_servers() if each.name in REFERENCES] + [
        variant(name) for name in VARIANTS
    ]
    parts = arguments.only.split(",")
    targets = [each for each in targets if each.name == BASELINE or any(part in each.name for part in parts)]
    settings = campaign.CampaignSettings(rounds=arguments.rounds, duration=arguments.seconds)
    compare("native", targets, BASELINE, arguments.load, settings)


if __name__ == "__main__":
    main()
