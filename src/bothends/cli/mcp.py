"""`bothends mcp`: serve an assistant over the Model Context Protocol."""

from __future__ import annotations

import click

from bothends.cli import terminal
from bothends.errors import Unavailable
from bothends.install_hints import install_command


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def mcp() -> None:
    """Serve an assistant over the Model Context Protocol, on standard input and output.

    The assistant can run a server and a client in the sandbox, read their timeline, ask what they wait for
    while they hang, and check a program against a contract. It is started by the assistant's host, from a
    configuration such as:

    \b
      {"mcpServers": {"bothends": {"command": "bothends", "args": ["mcp"]}}}

    Exit status: 69 if a part is missing; the message has the command that installs it.
    """
    import sys
    from importlib.metadata import version

    from bothends.trace.capture.tracees import find_strace

    find_strace()
    try:
        from bothends.assistant.server import create
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "pydantic"):
            raise
        hint = install_command("mcp")
        raise Unavailable("start", "mcp", reason="the package mcp is not installed", hint=hint) from error
    if terminal.is_terminal(sys.stdin):
        terminal.note("waits for an assistant's messages on standard input; ^C ends it")
    create(version("bothends")).run("stdio")
