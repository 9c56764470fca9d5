"""The native engine beside a good C epoll server and uvloop's Protocol: `python -m benchmarks.native`.

What `bothends bench engines` does with all engines is done here with one in its variants: on io_uring and on
epoll, called by the chunk and by the line, with 50 us of busy polling. The figures are kept in native.md.
Give it a quiet machine and ten minutes.
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
from bothends.bench.targets import BenchTarget, reference_servers

HERE = Path(__file__).resolve().parent
BASELINE = "c-epoll"
RIVALS = (BASELINE, "c-uring", "uvloop-protocol")

VARIANTS = {
    "native": ("chunk", "io_uring", ()),
    "native on epoll": ("chunk", "epoll", ()),
    "native, by the line": ("line", "io_uring", ()),
    "native, busy polling": ("chunk", "io_uring", ("--busy-poll", "0.00005")),
}


def variant(name: str) -> BenchTarget:
    """The native engine, in one of its variants."""
    function, backend, more = VARIANTS[name]

    def command(transport: str, function: str) -> tuple[str, tuple[str, ...]]:
        words = (sys.executable, "-m", "bothends", "serve", "--quiet", f"{HERE / 'upper.py'}:{function}")
        where = (f"{transport}://127.0.0.1:0", "--engine", "native", *more)
        return transport, ("env", f"BOTHENDS_NATIVE={backend}", *words, *where)

    return BenchTarget(name, (command("tcp", function), command("udp", "packet")))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--load", action="append", choices=campaign.LOAD_PROFILES, help="only these")
    parser.add_argument("--only", default="", help="servers, by a part of their names, comma-separated")
    asked = parser.parse_args()
    targets = [rival for rival in reference_servers() if rival.name in RIVALS] + [
        variant(name) for name in VARIANTS
    ]
    parts = asked.only.split(",")
    targets = [each for each in targets if each.name == BASELINE or any(part in each.name for part in parts)]
    kinds = [campaign.LOAD_PROFILES[name] for name in asked.load or campaign.LOAD_PROFILES]
    settings = campaign.CampaignSettings(rounds=asked.rounds, duration=asked.seconds)

    def told(done: int, total: int, what: str) -> None:
        print(f"{done + 1} of {total}: {what}", file=sys.stderr)

    entries = campaign.run_campaign(targets, kinds, settings, told)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = Document(VERSION, now, "python -m benchmarks.native", host_info(), entries, baseline=BASELINE)
    text = tables(document)
    if sys.argv[1:] == []:
        (HERE / "native.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
