"""`bothends serve ... --check`: what would run, or what is wrong with it. Nothing is bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bothends.cli import terminal
from bothends.cli.serve.runtime import dry_run
from bothends.configuration import ServeOptions
from bothends.endpoints import Endpoint


def show(found: Sequence[ServeOptions]) -> None:
    """Print a table of the servers.

    Raises:
        BothendsError: one of them would not run.
    """
    rows = []
    for options in found:
        engine = dry_run(options)
        rows.append(
            (
                options.title,
                _join_endpoints(options.endpoints),
                engine.name,
                str(options.workers),
                _join_endpoints(options.metrics) or "-",
            )
        )
    terminal.table(("name", "endpoints", "engine", "processes", "metrics"), rows)


def _join_endpoints(endpoints: Iterable[Endpoint]) -> str:
    return " ".join(map(str, endpoints))
