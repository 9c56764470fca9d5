"""`bothends trace`: what both ends call, and what goes over the wire because of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.trace.diagram import Diagram, Filter
    from bothends.trace.model import Moment
    from bothends.trace.packets import Capture
    from bothends.trace.session import Session


@click.command(
    short_help="Draw the calls of both ends and the packets between them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1)
@click.option("--server", "servers", metavar="COMMAND", multiple=True, help="Start this first; repeatable.")
@click.option(
    "--client",
    "clients",
    metavar="COMMAND",
    multiple=True,
    help="Start this when the servers are ready; repeatable.",
)
@click.option(
    "--lane", "lanes", metavar="NAME=COMMAND", multiple=True, help="As --client, under a name of its own."
)
@click.option(
    "--attach",
    "pids",
    metavar="PID",
    type=click.IntRange(1),
    multiple=True,
    help="Trace a process that runs.",
)
@click.option("--calls-only", is_flag=True, help="Capture no packets.")
@click.option("--quiet-calls", is_flag=True, help="Leave out what moves nothing: setsockopt, poll, fcntl.")
@click.option("--only", metavar="CALLS", help="Draw these calls only, as in send,recv,connect.")
@click.option(
    "--descriptor",
    "descriptors",
    metavar="N",
    type=int,
    multiple=True,
    help="Draw this descriptor only; repeatable.",
)
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    type=int,
    multiple=True,
    help="Draw what has this port at an end; repeatable.",
)
@click.option("--explain", is_flag=True, help="Say below each call what it means.")
@click.option(
    "--width",
    metavar="COLUMNS",
    type=click.IntRange(60, 1000),
    help="Of the picture [default: the terminal's].",
)
def trace(
    command: tuple[str, ...],
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    lanes: tuple[str, ...],
    pids: tuple[int, ...],
    calls_only: bool,
    quiet_calls: bool,
    only: str | None,
    descriptors: tuple[int, ...],
    ports: tuple[int, ...],
    explain: bool,
    width: int | None,
) -> None:
    """Run programs in any language, and draw on one time-line what each calls and what goes over the wire.

    \b
      bothends trace --server "python3 server.py" --client "python3 client.py"
      bothends trace -- curl http://127.0.0.1:8000/

    A server is ready when it listens; then the clients start, and the keyboard is the first one's. When the
    last client has ended, the servers are ended. {port} in a client's command is the first server's port.

    Leaves with what the last client, or COMMAND, left with; 69 where strace is missing.
    """
    from bothends.trace.diagram import Filter
    from bothends.trace.session import Session

    shown = Filter(
        quiet_calls=quiet_calls,
        only=frozenset(filter(None, (only or "").split(","))),
        descriptors=frozenset(descriptors),
        ports=frozenset(ports),
    )
    if not (command or servers or clients or lanes or pids):
        raise click.UsageError("nothing to trace: -- COMMAND, --server and --client, or --attach PID")
    capture = None if calls_only else open_capture()
    live = _Live(shown, explain=explain, width=width)
    session = Session(live.tell, idle=live.idle, capture=capture)
    add_programs(session, command, servers, clients, lanes, pids)
    live.begin(session)
    session.run()
    live.end(session)
    raise click.exceptions.Exit(status_of(session))


def open_capture() -> Capture | None:
    """Packets, or one line that says why there are none."""
    from bothends.errors import Unavailable
    from bothends.trace.packets import Capture

    try:
        return Capture()
    except Unavailable as error:
        terminal.note(f"calls only: {error}", "warning")
        return None


def add_programs(
    session: Session,
    command: tuple[str, ...],
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    lanes: tuple[str, ...],
    pids: tuple[int, ...],
) -> None:
    """Give the session what it is to run. Raises CallerError where something can't be run."""
    from bothends.trace import programs

    keyboard = True
    for number, text in enumerate(servers, 1):
        session.server("server" if number == 1 else f"server {number}", programs.command_words(text))
    for number, text in enumerate(clients, 1):
        words = programs.command_words(text)
        session.client("client" if number == 1 else f"client {number}", words, keyboard=keyboard)
        keyboard = False
    for lane in lanes:
        name, found, text = lane.partition("=")
        if not found:
            raise click.UsageError(f"--lane takes NAME=COMMAND, and {lane!r} has no =")
        session.client(name, programs.command_words(text), keyboard=keyboard)
        keyboard = False
    if command:
        programs.check(command)
        session.client(command[0].rpartition("/")[2], command, keyboard=keyboard)
    for pid in pids:
        session.attach(f"process {pid}", pid)


def status_of(session: Session) -> int:
    """What to leave with: 128 and the signal's number where one ended it, as a shell has it."""
    import signal

    if session.stopped_by is not None:
        return 130 if session.stopped_by == signal.SIGINT else 128 + session.stopped_by
    if session.left_early:
        terminal.error(f"{session.left_early[0]} ended before it listened")
        return 1
    status = list(session.statuses.values())[-1] or 0
    return status if status >= 0 else 128 - status


class _Live:
    """The picture on stdout, as it comes."""

    def __init__(self, shown: Filter, *, explain: bool, width: int | None) -> None:
        import shutil

        self._shown = shown
        self._explain = explain
        self._width = width or shutil.get_terminal_size((100, 24)).columns
        self._colour = terminal.has_colour(sys.stdout)
        self._diagram: Diagram | None = None

    def begin(self, session: Session) -> None:
        from bothends.trace.diagram import Diagram

        self._diagram = Diagram(
            session.trace, self._width, self._shown, explain=self._explain, roles=session.roles
        )

    def tell(self, moment: Moment) -> None:
        assert self._diagram is not None
        self._write(self._diagram.rows(moment))

    def idle(self) -> None:
        assert self._diagram is not None
        self._write(self._diagram.pending())

    def end(self, session: Session) -> None:
        for note in session.trace.notes:
            terminal.note(note, "warning")

    def _write(self, rows: object) -> None:
        from bothends.trace.diagram import painted

        for row in rows:  # type: ignore[attr-defined]
            print(painted(row, colour=self._colour), flush=True)  # noqa: T201
