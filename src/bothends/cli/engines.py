"""`bothends engines`: list the I/O engines, what each supports, and why not more."""

from __future__ import annotations

from typing import Any, Final

import click

from bothends.cli import terminal
from bothends.cli.terminal import table, yes_or_dash
from bothends.engines import registry as engine_registry

# Capability of an engine -> its key in the JSON, which readers depend on, where the two differ.
_CAPABILITY_KEYS: Final = {
    "supports_push": "posts",
    "rejects_when_full": "turns_away",
    "accepts_inherited": "adopts",
    "supports_busy_poll": "looks_busily",
}
# Capability of an engine -> its name in the table.
_CAPABILITY_LABELS: Final = {
    "streams": "streams",
    "datagrams": "datagrams",
    "supports_push": "push",
    "concurrent": "concurrent connections",
    "rejects_when_full": "refusing connections when full",
    "accepts_inherited": "inherited connections",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def engines(as_json: bool) -> None:
    """List the I/O engines: the ways in which a server waits for many clients.

    \b
    For example:
      bothends engines
      bothends serve upper tcp://:12000 --engine threads
    """
    found: list[dict[str, Any]] = []
    for name in engine_registry.names():
        engine = engine_registry.load(name)
        found.append(
            {
                "name": name,
                "summary": engine.summary,
                "streams": engine.streams,
                "datagrams": engine.datagrams,
                "posts": engine.supports_push,
                "concurrent": engine.concurrent,
                "missing": engine.unavailable_reason(),
                "here": engine.backend_info(),
                "why_not": {_CAPABILITY_KEYS.get(each, each): why for each, why in engine.why_not.items()},
            }
        )
    if as_json:
        terminal.show_json(found, indent=2)
        return
    table(
        ("engine", "streams", "datagrams", "push", "how it waits"),
        [
            (
                each["name"],
                yes_or_dash(each["streams"]),
                yes_or_dash(each["datagrams"]),
                yes_or_dash(each["posts"]),
                _describe_engine(each),
            )
            for each in found
        ],
    )
    reasons = [
        (each["name"], _CAPABILITY_LABELS.get(capability, capability), reason)
        for each in found
        for capability, reason in engine_registry.load(each["name"]).why_not.items()
    ]
    if reasons:
        terminal.show()
        table(("engine", "does not support", "because"), reasons)


def _describe_engine(engine: dict[str, Any]) -> str:
    if engine["missing"]:
        return f"unavailable: {engine['missing']}"
    return f"{engine['summary']}; here {engine['here']}" if engine["here"] else str(engine["summary"])
