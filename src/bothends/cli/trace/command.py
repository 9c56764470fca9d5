"""`bothends trace`: draw the system calls of both ends, and the packets between them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.cli.termination import raise_exit_on_signals
from bothends.cli.trace.output import (
    STDOUT,
    TraceOutputs,
    TraceWriter,
    check_attachments,
    describe_missing_sockets,
    exit_status,
    open_call_source,
    open_capture,
    open_kernel_tracer,
    open_tls,
)
from bothends.cli.trace.programs import ProgramBuilder, Programs

_FILE = click.Path(dir_okay=False, path_type=Path)
_AFTER_DASHES = "bothends.trace.after_dashes"  # key of click's `meta`: whether -- was given


class _TraceCommand(click.Command):
    """A command that notes whether -- was given: what follows is one program with its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, as click does."""
        ctx.meta[_AFTER_DASHES] = "--" in args
        return super().parse_args(ctx, args)


@click.command(
    cls=_TraceCommand,
    short_help="Draw the system calls of both ends and the packets between them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("command", metavar="[SERVER CLIENT... | -- COMMAND...]", nargs=-1)
@click.option(
    "--server", "servers", metavar="COMMAND", multiple=True, help="Start this server first; may be repeated."
)
@click.option(
    "--client",
    "clients",
    metavar="COMMAND",
    multiple=True,
    help="Start this client once all servers listen; may be repeated.",
)
@click.option(
    "--lane",
    "lanes",
    metavar="NAME=COMMAND",
    multiple=True,
    help="Like --client, with a name for its column.",
)
@click.option(
    "--attach",
    "--pid",
    "pids",
    metavar="PID",
    type=click.IntRange(1),
    multiple=True,
    help="Trace a running process; may be repeated.",
)
@click.option(
    "--cgroup", metavar="PATH", default="", help="Follow the processes of a control group, until ^C (eBPF)."
)
@click.option(
    "--container",
    metavar="NAME|ID",
    default="",
    help="Follow the processes of a container, until ^C (eBPF).",
)
@click.option("--endpoint", metavar="URL", help="Draw the packets of this endpoint only, until ^C.")
@click.option(
    "--wire",
    "path",
    metavar="TOXICS",
    help="Run each program in a host of a wire with faults: loss=5%,delay=40ms.",
)
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End a run that lasts longer, and explain what it waits for; exit status 124.",
)
@click.option(
    "--with",
    "source",
    metavar="SOURCE",
    type=click.Choice(["strace", "bpf"]),
    help="What sees the calls: bpf (eBPF), the default where it is allowed, or strace.",
)
@click.option("--calls-only", is_flag=True, help="Capture no packets.")
@click.option(
    "--tls",
    is_flag=True,
    help="Draw what is said inside TLS (OpenSSL, as root). It shows secrets: passwords, cookies, keys.",
)
@click.option(
    "--open",
    "opened",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Draw a saved trace; several are merged on one timeline.",
)
@click.option(
    "--from",
    "begin",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Of a saved trace, draw what is from this time on.",
)
@click.option(
    "--to",
    "end",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Of a saved trace, draw what is up to this time.",
)
@click.option(
    "--all-calls", is_flag=True, help="Draw calls that transfer nothing as well: setsockopt, poll, fcntl."
)
@click.option("--quiet-calls", is_flag=True, hidden=True)  # the default; it was an option once
@click.option("--only", metavar="CALLS", default="", help="Draw these calls only, such as sendto,recvfrom.")
@click.option(
    "--descriptor",
    "descriptors",
    metavar="N",
    type=int,
    multiple=True,
    help="Draw this file descriptor only; may be repeated.",
)
@click.option(
    "--port",
    "ports",
    metavar="PORT",
    type=int,
    multiple=True,
    help="Draw sockets with this port only; may be repeated. Alone: follow the processes at it (eBPF).",
)
@click.option("--summary", is_flag=True, help="Print tables of connections and processes, not the diagram.")
@click.option("--unfold", is_flag=True, help="Draw every row, even of round trips that repeat many times.")
@click.option("--explain", is_flag=True, help="Explain each call below it.")
@click.option("--width", metavar="COLUMNS", type=click.IntRange(60, 1000), help="Width of the diagram.")
@click.option("--save", metavar="FILE", type=_FILE, help="Write the trace to a file, for --open.")
@click.option("--svg", metavar="FILE", type=_FILE, help="Write the diagram as SVG.")
@click.option("--cast", metavar="FILE", type=_FILE, help="Write a recording for asciinema.")
@click.option("--pdf", metavar="FILE", type=_FILE, help="Write the diagram as PDF, for slides.")
@click.option(
    "--animated", is_flag=True, help="Let the rows of the SVG appear one after another, with the findings."
)
@click.option("--large", is_flag=True, help="Larger type in SVG and PDF, for slides.")
@click.option(
    "--theme",
    type=click.Choice(["auto", "light", "dark"]),
    default="auto",
    help="Colours of SVG and PDF. Default: as the reader has them; light in PDF.",
)
@click.option("--step", is_flag=True, help="Of a saved trace, show one row after another: arrow keys, q.")
@click.option("--html", metavar="FILE", type=_FILE, help="Write an interactive page that explains each call.")
@click.option(
    "--pcapng",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write the packets, for Wireshark; - is standard output. A pipe gets each one at once.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of the diagram, one event per line."
)
@click.pass_context
def trace(
    context: click.Context,
    /,
    command: tuple[str, ...],
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    lanes: tuple[str, ...],
    pids: tuple[int, ...],
    cgroup: str,
    container: str,
    endpoint: str | None,
    path: str | None,
    time_limit: float | None,
    source: str | None,
    calls_only: bool,
    tls: bool,
    opened: tuple[Path, ...],
    begin: float | None,
    end: float | None,
    all_calls: bool,
    quiet_calls: bool,
    only: str,
    descriptors: tuple[int, ...],
    ports: tuple[int, ...],
    summary: bool,
    unfold: bool,
    explain: bool,
    width: int | None,
    save: Path | None,
    svg: Path | None,
    cast: Path | None,
    pdf: Path | None,
    animated: bool,
    large: bool,
    theme: Literal["auto", "light", "dark"],
    step: bool,
    html: Path | None,
    pcapng: Path | None,
    as_json: bool,
) -> None:
    """Run programs in any language, and draw their system calls and packets on one timeline.

    \b
      bothends trace server.py client.py
      bothends trace --server "server.py 0" --client "./client 127.0.0.1 {port}"
      bothends trace --html run.html -- curl http://127.0.0.1:8000/

    A source file is run by its interpreter; C, C++, Java, Go and Rust are compiled first. Clients start once
    all servers listen; the first client gets standard input. When the last client has exited, the servers are
    terminated. {port} in a client's command is the first server's port.

    ^\\ prints what the programs wait for; so does a run in which nothing moves for three seconds.

    Exit status: that of the last client, or of COMMAND; 1 if a program cannot be compiled; 69 if there
    is neither strace nor eBPF.
    """
    from bothends.trace.rendering.layout import Filter
    from bothends.trace.rendering.picture_style import PictureStyle

    event_filter = Filter(
        hide_quiet_calls=not all_calls and not only,
        only=_parse_calls(only),
        descriptors=frozenset(descriptors),
        ports=frozenset(ports),
    )
    outputs = TraceOutputs(
        event_filter,
        explain,
        width,
        as_json,
        save,
        svg,
        html,
        pcapng,
        fold=not unfold,
        summary=summary,
        cast=cast,
        pdf=pdf,
        picture=PictureStyle(theme, large, animated),
        is_stepped=step,
    )
    _check_pictures(outputs, opened)
    if as_json and pcapng == STDOUT:
        raise click.UsageError("--json and --pcapng - cannot be combined: both write to standard output")
    if summary and outputs.takes_stdout:
        raise click.UsageError("--summary cannot be combined with --json or --pcapng -")
    programs = Programs(command, servers, clients, lanes, pids, 0, cgroup, container)
    if len(ports) == 1 and not (programs or endpoint or opened):
        programs = replace(programs, port=ports[0])
    if not context.meta[_AFTER_DASHES]:
        programs = programs.with_files()
        if programs.note:
            terminal.note(programs.note)
    if programs.follows and source == "strace":
        raise click.UsageError("--port, --cgroup and --container need eBPF: leave out --with strace")
    if path is not None and (pids or programs.follows or calls_only or not programs):
        raise click.UsageError("--wire needs programs that bothends starts, and excludes --calls-only")
    if tls and (path is not None or not programs):
        raise click.UsageError("--tls needs programs, and excludes --wire")
    if sum(map(bool, (programs, endpoint, opened))) != 1:
        choices = "SERVER CLIENT, -- COMMAND, --attach PID, --port PORT, --endpoint URL, or --open FILE"
        raise click.UsageError(f"nothing to trace, or too much: give one of {choices}")
    if (begin is not None or end is not None) and not opened:
        raise click.UsageError("--from and --to need --open")
    if opened:
        reopen(opened, outputs, begin, end)
    elif endpoint is not None:
        watch(endpoint, outputs)
    else:
        raise click.exceptions.Exit(
            run(
                programs,
                outputs,
                calls_only=calls_only,
                wire_path=path,
                time_limit=time_limit,
                source=source,
                tls=tls,
            )
        )


def _check_pictures(outputs: TraceOutputs, opened: Sequence[Path]) -> None:
    """Raise click.UsageError for options that have no effect, or need a terminal."""
    style = outputs.picture
    if style.is_animated and outputs.svg is None:
        raise click.UsageError("--animated needs --svg FILE")
    if (style.is_large or style.theme != "auto") and outputs.svg is None and outputs.pdf is None:
        raise click.UsageError("--large and --theme need --svg FILE or --pdf FILE")
    if not outputs.is_stepped:
        return
    if not opened:
        raise click.UsageError("--step needs --open FILE: save the trace first, with --save FILE")
    if outputs.takes_stdout or outputs.summary:
        raise click.UsageError("--step cannot be combined with --json, --summary or --pcapng -")
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)):
        raise click.UsageError("--step needs a terminal; without it, --open prints the diagram")


def _parse_calls(text: str) -> frozenset[str]:
    """Return the names in a comma-separated list of calls. Raises UnknownName."""
    from bothends.errors import UnknownName
    from bothends.trace.capture.calls import DRAWN_CALLS
    from bothends.trace.capture.tls_source import TLS_CALLS

    known = DRAWN_CALLS | TLS_CALLS
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            nearest = suggest.nearest(name, sorted(known))
            raise UnknownName(
                "call", name, nearest, "--only takes calls that the diagram shows, such as sendto,recvfrom"
            )
    return frozenset(names)


def run(
    programs: Programs,
    outputs: TraceOutputs,
    *,
    calls_only: bool,
    wire_path: str | None = None,
    time_limit: float | None = None,
    source: str | None = None,
    tls: bool = False,
) -> int:
    """Run programs and draw their calls and packets. `wire_path` is the value of --wire, `source` of --with.

    `tls`: what is said inside TLS as well.

    Returns: the exit status.
    """
    from bothends.trace.capture.network_namespaces import NamespaceCapture
    from bothends.trace.model import Trace
    from bothends.trace.session import TraceSession

    trace_model = Trace()
    records = wire_path is None and not outputs.as_json and outputs.pcapng != STDOUT
    writer = TraceWriter(outputs, trace_model, programs_run=True, records=records)
    with contextlib.ExitStack() as stack:
        stack.enter_context(raise_exit_on_signals())
        wanted = "bpf" if programs.follows else source
        bpf = stack.enter_context(open_call_source(wanted, has_wire=wire_path is not None))
        builder = stack.enter_context(ProgramBuilder())
        if wire_path is None:
            session = TraceSession(
                writer.write,
                on_idle=writer.idle,
                trace=trace_model,
                bpf=bpf,
                on_stall=writer.on_stall,
                time_limit=time_limit,
            )
        else:
            from bothends.cli.trace.wire import TracedWire
            from bothends.cli.wire_options import WirePath

            wire = stack.enter_context(TracedWire(programs.roles, WirePath(wire_path)))
            session = TraceSession(
                writer.write,
                on_idle=writer.idle,
                trace=trace_model,
                launcher=wire,
                on_stall=writer.on_stall,
                time_limit=time_limit,
            )
            session.capture = wire
        if tls:
            session.tls = stack.enter_context(open_tls())
        output = 2 if outputs.takes_stdout else None  # a pipe carries results only
        programs.add_to(session, builder, output)
        if wire_path is None and not calls_only:
            capture = open_capture(wire_hint=not programs.pids and not programs.follows)
            if capture is not None:
                session.capture = NamespaceCapture(
                    capture, session.on_namespace, session.on_missing_namespace
                )
        if not calls_only:
            has_packets = wire_path is None and session.capture is not None
            session.kernel = stack.enter_context(open_kernel_tracer(has_packets=has_packets))
        writer.roles, writer.end_line = session.roles, session.take_unfinished_line
        with writer:
            session.recorder, session.on_record_only = writer.recorder, writer.on_record_only
            session.on_calm, session.on_much_recorded = writer.on_calm, writer.settle
            session.run()
            if session.records_only:
                writer.end_recording(session.end_recording())
            else:
                writer.end()
        check_attachments(session)
        for line in describe_missing_sockets(session):
            terminal.note(line, "warning")
        if wire_path is not None:
            wire.check()
            for line in wire.summary():
                terminal.note(line)
    return exit_status(session)


def watch(text: str, outputs: TraceOutputs) -> None:
    """Draw the packets of an endpoint until a signal arrives."""
    from bothends.endpoints import Endpoint
    from bothends.trace.capture.packets_only import PacketOnlyLanes, addresses_of
    from bothends.trace.model import Trace
    from bothends.trace.session import TraceSession

    endpoint, trace_model = Endpoint.parse(text), Trace()
    addresses = addresses_of(endpoint)
    writer = TraceWriter(outputs, trace_model)
    session = TraceSession(
        writer.write,
        on_idle=writer.idle,
        trace=trace_model,
        assign_sockets=PacketOnlyLanes(trace_model, endpoint, addresses).assign_sockets,
    )
    session.capture = open_capture(needed=True)
    for address in addresses:
        session.watch(address)
    terminal.note(f"packets of {endpoint}; press ^C to stop")
    with writer:
        session.run()
        writer.end()


def reopen(paths: Sequence[Path], outputs: TraceOutputs, begin: float | None, end: float | None) -> None:
    """Draw a saved trace, or several merged on one timeline; from `begin` to `end` only, in seconds."""
    from bothends.trace.correlation.merge import merge
    from bothends.trace.model import Trace
    from bothends.trace.opening import open_trace
    from bothends.trace.trace_file import Period

    period = Period.from_seconds(begin, end)
    if period is not None and len(paths) > 1:
        raise click.UsageError("--from and --to need one trace: save the merged one first")
    trace_model = Trace()
    writer = TraceWriter(outputs, trace_model, is_part=period is not None)
    if len(paths) == 1:
        with open_trace(paths[0]) as file, writer:
            recorded = file.read(writer.write, trace_model, period)
            writer.end()
        if recorded is not None and period is not None and period.begin > 0:
            terminal.note(
                f"{paths[0]} holds the run as it was recorded, so all that is before --from was read; "
                f"to read a period by itself: bothends trace --open {paths[0]} --save OTHER, and open that"
            )
        return
    traces = [Trace() for _ in paths]
    for path, single in zip(paths, traces, strict=True):
        with open_trace(path) as file:
            file.read(lambda _: None, single)
    with writer:
        for point in merge(traces, trace_model):
            writer.write(point)
        writer.end()
