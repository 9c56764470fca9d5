"""`bothends services`: list the services, and what each supports."""

from __future__ import annotations

from typing import Any

import click

from bothends.cli import terminal
from bothends.cli.terminal import table, yes_or_dash
from bothends.errors import BothendsError
from bothends.services import registry as service_registry


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def services(as_json: bool) -> None:
    """List the services: the protocols that a server can speak.

    \b
    For example:
      bothends services
      bothends serve upper tcp://:12000
    """
    found: list[dict[str, Any]] = []
    for name in service_registry.names():
        entry: dict[str, Any] = dict.fromkeys(("summary", "streams", "datagrams", "posts", "broken"))
        try:
            service = service_registry.load(name)
        except BothendsError as error:  # one broken package must not hide the others
            entry["broken"] = str(error)
        else:
            entry["summary"] = service.summary
            entry["streams"] = service.streams
            entry["datagrams"] = service.datagrams
            entry["posts"] = service.pushes
        found.append({"name": name, **entry})
    if as_json:
        terminal.show_json(found, indent=2)
        return
    table(
        ("service", "streams", "datagrams", "description"),
        [
            (
                each["name"],
                yes_or_dash(each["streams"]),
                yes_or_dash(each["datagrams"]),
                each["broken"] or each["summary"],
            )
            for each in found
        ],
    )
