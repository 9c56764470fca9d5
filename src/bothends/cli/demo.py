"""`bothends demo`: a server and a client that exchange a few messages over real sockets."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click

from bothends.cli import terminal
from bothends.cli.terminal import styled
from bothends.client.blocking import connect
from bothends.escaping import escape
from bothends.server import serve

_LINES = ("hello", "any port in a storm", "größe, naïveté, é")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def demo() -> None:
    """Serve `upper` over TCP and UDP, send lines to both, print the exchange, and exit.

    \b
    For example:
      bothends demo
    """
    with serve("upper", "tcp://127.0.0.1:0", "udp://127.0.0.1:0") as server:
        _print(f"{styled('bothends serve upper', 'strong', sys.stdout)} ", server.engine.name)
        for endpoint in server.endpoints:
            _print("", "")
            with connect(endpoint) as connection:
                _print(
                    styled(f"{connection.local} -> {connection.peer}", "quiet", sys.stdout), endpoint.scheme
                )
                for line in _LINES:
                    reply = connection.request(line.encode())
                    _print(f"  {styled('client', 'warning', sys.stdout)}  {line}", "")
                    _print(f"  {styled('server', 'good', sys.stdout)}  {escape(reply)}", "")
    _print("", "")
    _print("Both ends are closed, both ports are free. To do it by hand, in two terminals:", "")
    for arguments in ("serve upper tcp://:12000 udp://:12000", "connect tcp://127.0.0.1:12000"):
        _print(f"  {styled(f'{_own_name()} {arguments}', 'strong', sys.stdout)}", "")


def _own_name() -> str:
    """Return what to type for this program: its name if PATH finds it, else the path as it was called."""
    program = Path(sys.argv[0])
    found = shutil.which("bothends")
    if program.name != "bothends" or (found is not None and Path(found).resolve() == program.resolve()):
        return "bothends"
    path = program.absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _print(text: str, note: str) -> None:
    terminal.show(f"{text}  {styled(note, 'quiet', sys.stdout)}" if note else text)
