"""`bothends why`: show which running programs wait for each other, and what is wrong with their sockets."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from bothends.cli import terminal
from bothends.errors import UnknownName

if TYPE_CHECKING:
    from bothends.why import Report

_INTERVAL: Final = 2.0  # seconds between two reports of --watch


@click.command(
    short_help="Show which running programs wait for each other, and why.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("subject", metavar="[PID | :PORT | ENDPOINT]", required=False)
@click.option("--watch", is_flag=True, help="Repeat every 2 s until ^C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, one line each time.")
def why(subject: str | None, watch: bool, as_json: bool) -> None:
    """Explain why programs that already run do not make progress: what waits for what, on which socket.

    \b
      bothends why                    all that is wrong here, worst first
      bothends why 4711               what a process waits for, what can end it;
                                      for a shell, also the programs it waits for
      bothends why :12000             the same for a port
      bothends why unix:/run/a.sock   the same for an endpoint

    It finds deadlocks, data that no thread reads, full accept queues, connections that are never closed,
    peers that vanished, dropped datagrams, ports and descriptors that run out, and ports that are shared by
    mistake. Each line shows what was seen, and what was inferred from it.

    Nothing is attached, stopped or changed. Processes of other users are visible to root only. Exit status: 1
    if something is wrong, 0 if not, 2 if there is no such process or the argument is not valid. Information
    does not count as wrong.
    """
    if not watch:
        report = look(subject)
        _print(report, as_json=as_json, indent=2)
        if report.is_wrong:
            raise click.exceptions.Exit(1)
        return
    clears = terminal.is_terminal(sys.stdout) and not as_json
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            started = time.monotonic()
            report = look(subject)
            if clears:
                terminal.clear_screen()
            _print(report, as_json=as_json, indent=None)
            if not clears and not as_json:
                terminal.show()
            sys.stdout.flush()
            time.sleep(max(0.0, started + _INTERVAL - time.monotonic()))


def look(text: str | None) -> Report:
    """Take a snapshot and report on it. Raises UnknownName if there is no such process."""
    from bothends.why import make_report, take_snapshot
    from bothends.why.explain import parse_subject
    from bothends.why.python_lines import read_lines
    from bothends.why.snapshot import awaited_children

    subject = parse_subject(text) if text is not None else None
    if subject is not None and subject.pids:
        awaited = [child for pid in subject.pids for child in awaited_children(pid)]
        subject = replace(subject, pids=(*subject.pids, *awaited))
    pids = subject.pids if subject is not None else ()
    # 50,000 sockets take half a million objects, none of them in a reference cycle: looking for cycles
    # meanwhile takes a quarter of the time.
    gc.disable()
    try:
        snapshot = take_snapshot(skipped=[os.getpid()], also=pids)
        report = make_report(snapshot, subject)
        # Worst first: of many problems, the first ones have lines.
        concerned = [pid for each in report.problems if each.is_wrong for pid in sorted(each.pids)]
        if lines := read_lines(dict.fromkeys([*pids, *concerned])):
            for thread in snapshot.threads():
                thread.source = lines.get(thread.tid, "")
            report = make_report(snapshot, subject)
    finally:
        gc.enable()
    if pids and not report.found:
        raise UnknownName("process", str(text), "", "ps -e lists them")
    return report


def _print(report: Report, *, as_json: bool, indent: int | None) -> None:
    from bothends.why.report import as_object, text_lines

    if as_json:
        terminal.show_json({"time": time.time(), **as_object(report)}, indent=indent)
        return
    for text, style in text_lines(report):
        terminal.show(terminal.styled(text, style, sys.stdout))
    sys.stdout.flush()
    for each in report.notes:
        terminal.note(each)
