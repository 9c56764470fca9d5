"""`bothends trace`: what both ends call, and what goes over the wire because of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.cli.trace.output import STDOUT, Programs, TraceOutputs, TraceWriter, exit_status, open_capture

_FILE = click.Path(dir_okay=False, path_type=Path)


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
    help="A process that runs already.",
)
@click.option("--endpoint", metavar="URL", help="No program: the packets of this endpoint, until ^C.")
@click.option(
    "--wire",
    "path",
    metavar="TOXICS",
    help="Each in a host of its own, and a path between that misbehaves: loss=5%,delay=40ms.",
)
@click.option("--calls-only", is_flag=True, help="Capture no packets.")
@click.option(
    "--open",
    "opened",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Draw a trace that was saved; several on one time-line.",
)
@click.option("--quiet-calls", is_flag=True, help="Leave out what moves nothing: setsockopt, poll, fcntl.")
@click.option("--only", metavar="CALLS", default="", help="Draw these calls only, as in sendto,recvfrom.")
@click.option(
    "--descriptor",
    "descriptors",
    metavar="N",
    type=int,
    multiple=True,
    help="Draw this one only; repeatable.",
)
@click.option(
    "--port", "ports", metavar="PORT", type=int, multiple=True, help="Draw what has this port at an end."
)
@click.option("--explain", is_flag=True, help="Say below each call what it means.")
@click.option("--width", metavar="COLUMNS", type=click.IntRange(60, 1000), help="Of the picture.")
@click.option("--save", metavar="FILE", type=_FILE, help="Write the trace, for --open.")
@click.option("--svg", metavar="FILE", type=_FILE, help="Write the picture as SVG.")
@click.option("--html", metavar="FILE", type=_FILE, help="Write a page that says what each call means.")
@click.option(
    "--pcapng",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write the packets, for Wireshark; as they come to a pipe, or - for standard output.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, one event a line, instead of the picture.")
def trace(
    command: tuple[str, ...],
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    lanes: tuple[str, ...],
    pids: tuple[int, ...],
    endpoint: str | None,
    path: str | None,
    calls_only: bool,
    opened: tuple[Path, ...],
    quiet_calls: bool,
    only: str,
    descriptors: tuple[int, ...],
    ports: tuple[int, ...],
    explain: bool,
    width: int | None,
    save: Path | None,
    svg: Path | None,
    html: Path | None,
    pcapng: Path | None,
    as_json: bool,
) -> None:
    """Run programs in any language, and draw on one time-line what each calls and what goes over the wire.

    \b
      bothends trace --server "python3 server.py" --client "python3 client.py"
      bothends trace --html run.html -- curl http://127.0.0.1:8000/

    A server is ready when it listens; then the clients start, and the keyboard is the first one's. When the
    last client has ended, the servers are ended. {port} in a client's command is the first server's port.

    Leaves with what the last client, or COMMAND, left with; 69 where strace is missing.
    """
    from bothends.trace.rendering.layout import Filter

    shown = Filter(
        hide_quiet_calls=quiet_calls,
        only=_parse_calls(only),
        descriptors=frozenset(descriptors),
        ports=frozenset(ports),
    )
    wanted = TraceOutputs(shown, explain, width, as_json, save, svg, html, pcapng)
    if as_json and pcapng == STDOUT:
        raise click.UsageError("--json and --pcapng - don't go together: both go to standard output")
    programs = Programs(command, servers, clients, lanes, pids)
    if path is not None and (pids or calls_only or not programs):
        raise click.UsageError("--wire is for programs that are started, and their packets")
    if sum(map(bool, (programs, endpoint, opened))) != 1:
        either = "-- COMMAND, --server and --client, --attach PID, --endpoint URL, or --open FILE"
        raise click.UsageError(f"what is to be traced? {either}")
    if opened:
        reopen(opened, wanted)
    elif endpoint is not None:
        watch(endpoint, wanted)
    else:
        raise click.exceptions.Exit(run(programs, wanted, calls_only=calls_only, wire_path=path))


def _parse_calls(text: str) -> frozenset[str]:
    """The names of calls in a list with commas. Raises UnknownName."""
    from bothends.errors import UnknownName
    from bothends.trace.capture.calls import DRAWN_CALLS

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in DRAWN_CALLS:
            nearest = suggest.nearest(name, sorted(DRAWN_CALLS))
            raise UnknownName("call", name, nearest, "--only takes what the picture shows: sendto,recvfrom")
    return frozenset(names)


def run(programs: Programs, outputs: TraceOutputs, *, calls_only: bool, wire_path: str | None = None) -> int:
    """Run programs and draw what they do; what to leave with. `path`: on a wire that is like this."""
    from bothends.trace.capture.tracees import find_strace
    from bothends.trace.model import Trace
    from bothends.trace.session import TraceSession

    find_strace()
    record = Trace()
    outcome = TraceWriter(outputs, record)
    with contextlib.ExitStack() as stack:
        if wire_path is None:
            session = TraceSession(outcome.write, on_idle=outcome.idle, trace=record)
        else:
            from bothends.cli.trace.wire import TracedWire
            from bothends.cli.wire_options import WirePath

            wire = stack.enter_context(TracedWire(programs.roles, WirePath(wire_path)))
            session = TraceSession(outcome.write, on_idle=outcome.idle, trace=record, launcher=wire)
            session.capture = wire
        programs.add_to(session, output=2 if outputs.takes_stdout else None)  # a pipe carries results only
        if wire_path is None and not calls_only:
            session.capture = open_capture()
        outcome.roles, outcome.end_line = session.roles, session.take_unfinished_line
        with outcome:
            session.run()
            outcome.end()
        if wire_path is not None:
            wire.check()
            for line in wire.summary():
                terminal.note(line)
    return exit_status(session)


def watch(text: str, outputs: TraceOutputs) -> None:
    """Draw the packets of an endpoint until a signal comes."""
    from bothends.endpoints import Endpoint
    from bothends.trace.capture.packets_only import PacketOnlyLanes, addresses_of
    from bothends.trace.model import Trace
    from bothends.trace.session import TraceSession

    endpoint, record = Endpoint.parse(text), Trace()
    places = addresses_of(endpoint)
    outcome = TraceWriter(outputs, record)
    session = TraceSession(
        outcome.write,
        on_idle=outcome.idle,
        trace=record,
        assign_sockets=PacketOnlyLanes(record, endpoint, places).assign_sockets,
    )
    session.capture = open_capture(needed=True)
    for place in places:
        session.watch(place)
    terminal.note(f"packets of {endpoint}; ^C ends it")
    with outcome:
        session.run()
        outcome.end()


def reopen(paths: Sequence[Path], outputs: TraceOutputs) -> None:
    """Draw a trace that was saved, or several on one time-line."""
    from bothends.trace import trace_file
    from bothends.trace.correlation.merge import merge
    from bothends.trace.model import Trace

    record = Trace()
    outcome = TraceWriter(outputs, record)
    if len(paths) == 1:
        with _open_trace(paths[0]) as lines, outcome:
            trace_file.read(lines, str(paths[0]), outcome.write, record)
            outcome.end()
        return
    found = [Trace() for _ in paths]
    for path, trace_of_one in zip(paths, found, strict=True):
        with _open_trace(path) as lines:
            trace_file.read(lines, str(path), lambda _: None, trace_of_one)
    with outcome:
        for moment in merge(found, record):
            outcome.write(moment)
        outcome.end()


def _open_trace(path: Path) -> TextIO:
    from bothends.errors import SystemCallFailed

    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
