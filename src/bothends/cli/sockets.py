"""`bothends sockets`: print the socket table, with queues, TCP metrics, options and processes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.osutil.process_info import all_pids
from bothends.socket_table.rows import COLUMNS, cells, has_peer

if TYPE_CHECKING:
    from bothends.socket_table import SocketEntry, SocketTable

_LEAST_IMPORTANT: Final = ("more", "send", "recv", "kind", "peer", "process")  # the order of leaving out
_MAX_WIDTHS: Final = {"local": 24, "peer": 24, "process": 24}  # longer cells don't make their column wider
_GAP: Final = "  "
_MIN_MORE: Final = 16  # characters


@click.command(
    short_help="Show the socket table: addresses, state, round-trip time, process.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("processes", metavar="[PID | NAME]...", nargs=-1)
@click.option(
    "--only",
    metavar="KIND",
    multiple=True,
    help="Only sockets of this kind or state: tcp (with tcp6), unix, listen; may be repeated.",
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    help="Only sockets with this local or remote port.",
)
@click.option("--watch", is_flag=True, help="Repeat until ^C.")
@click.option(
    "-i",
    "interval",
    metavar="SECONDS",
    type=click.FloatRange(0.05, 86400),
    default=1.0,
    show_default=True,
    help="With --watch: the interval.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, one line per interval.")
def sockets(
    processes: tuple[str, ...],
    only: tuple[str, ...],
    port: int | None,
    watch: bool,
    interval: float,
    as_json: bool,
) -> None:
    """Show the sockets of a process, of all processes with a name, or of the whole system.

    \b
      bothends sockets
      bothends sockets 4711
      bothends sockets nginx --only listen --watch
      bothends sockets --port 12000

    recv and send count bytes: received but not read by the program, and sent but not acknowledged by the
    peer. For a listener they are the length and the limit of the accept queue. The last column has TCP's
    metrics of the path, and the options that differ from those of a new socket.

    Processes and options of other users' sockets are visible to root only; a note says what is missing. Exit
    status: 2 if there is no such process.
    """
    from bothends.socket_table import read_table
    from bothends.socket_table.options import OptionReader

    check_kinds(only)
    reader = OptionReader()

    def read() -> SocketTable:
        pids = [pid for each in processes for pid in find_pids(each)]
        return read_table(pids, reader, lambda row: matches(row, only, port))

    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(read, interval, as_json=as_json)
        return
    table = read()
    if as_json:
        terminal.show_json([as_object(row) for row in table.sockets], indent=2)
        left_out: Sequence[str] = ()
    else:
        left_out = _print_table(table)
    for each in table.notes:
        terminal.note(each)
    if left_out:
        terminal.note(f"columns left out, for want of width: {', '.join(left_out)}; --json has them")


def find_pids(process: str) -> list[int]:
    """Return the PIDs of a PID or a process name. Raises UnknownName."""
    from pathlib import Path

    from bothends.errors import UnknownName
    from bothends.escaping import escape_text
    from bothends.socket_table import owners

    if process.isdecimal() and len(process) < 10:
        found = [int(process)] if Path(f"/proc/{process}").exists() else []
    else:
        found = owners.pids_by_name(process)
    if not found:
        names = {name for pid in all_pids() for name in owners.process_names(pid)}
        nearest = suggest.nearest(process, names)
        raise UnknownName("process", process, escape_text(nearest), "ps -e lists them")
    return found


def check_kinds(only: Sequence[str]) -> None:
    """Check the names of kinds, families, types and states that --only takes. Raises UnknownName."""
    from bothends.errors import UnknownName
    from bothends.socket_table import entry

    states = {*entry.TCP_STATES.values(), *entry.NON_TCP_STATES.values()}
    protocols = {*entry.PROTOCOLS.values(), *(f"{name}6" for name in entry.PROTOCOLS.values())}
    families, types = entry.FAMILIES.values(), entry.TYPES.values()
    kinds = {f"{family} {kind}" for family in families for kind in types}
    known = {*protocols, *families, *types, *kinds, *map(str.lower, states)}
    for name in only:
        if name.lower() not in known:
            hint = "kinds are tcp, udp, unix and so on; states are listen, established, close-wait and so on"
            raise UnknownName("kind or state", name, suggest.nearest(name.lower(), sorted(known)), hint)


def fit_columns(rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the columns, rows and column widths for a width in characters, without unimportant columns.

    The longest cells do not count: a row with one takes two lines (`join_cells`). Only the last column is
    shortened.
    """
    shown = {name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)}

    def widths() -> dict[str, int]:
        longest = {name: max(map(len, (name, *texts))) for name, texts in shown.items()}
        return {name: min(size, _MAX_WIDTHS.get(name, size)) for name, size in longest.items()}

    def needed() -> int:
        least = {name: min(size, _MIN_MORE) if name == "more" else size for name, size in widths().items()}
        return sum(least.values()) + len(_GAP) * (len(least) - 1)

    for name in _LEAST_IMPORTANT:
        if name == "kind" and needed() > width:
            shown[name] = [text.partition(" ")[0] for text in shown[name]]  # the family only
        if needed() > width:
            del shown[name]
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)], list(widths().values())


def join_cells(columns: Sequence[str], row: Sequence[str], widths: Sequence[int], width: int) -> str:
    """Return the cells of a row in their columns. If a long address makes the line wider than `width`, the
    cells after it are in their columns of a second line.
    """
    cells = [f"{text:<{size}}" for text, size in zip(row, widths, strict=True)]
    line = _GAP.join(cells).rstrip()
    addresses = [at for at, name in enumerate(columns[:-1]) if name in ("local", "peer")]
    long = next((at for at in addresses if len(row[at]) > widths[at]), None)
    if long is None or len(line) <= width:
        return line
    rest = " " * (sum(widths[: long + 1]) + len(_GAP) * (long + 1)) + _GAP.join(cells[long + 1 :]).rstrip()
    return f"{_GAP.join(cells[: long + 1])}\n{rest}".rstrip()


def _print_table(table: SocketTable) -> list[str]:
    """Print the table, on a terminal without the columns for which there is no room. Returns those."""
    rows = [cells(row) for row in table.sockets]
    if not terminal.is_terminal(sys.stdout):
        terminal.table(COLUMNS, rows)
        return []
    width = terminal.columns()
    columns, fitted, widths = fit_columns(rows, width)
    for row in (columns, *fitted):
        line = join_cells(columns, row, widths, width)
        start = len(line) - len(row[-1])
        if columns[-1] == "more" and row[-1] and len(line) > width and "\n" not in line:
            line = line[: max(width, start + _MIN_MORE) - 1] + "…"
        terminal.show(terminal.styled(line, "strong", sys.stdout) if row is columns else line)
    return [name for name in COLUMNS if name not in columns]


def matches(row: SocketEntry, only: tuple[str, ...], port: int | None) -> bool:
    """Whether a socket has one of the kinds or states in `only` (if any), and the port (unless None)."""
    if port is not None and port not in (row.local.port, row.peer.port):
        return False
    kinds = {row.kind, row.kind.removesuffix("6"), row.family, row.type, row.state.lower()}
    return not only or not kinds.isdisjoint(kind.lower() for kind in only)


def as_object(row: SocketEntry) -> dict[str, Any]:
    """Return a socket as a JSON object. Names are escaped as in the table; times are in milliseconds."""
    import dataclasses

    tcp: dict[str, Any] | None = None
    if row.tcp is not None:
        tcp = dataclasses.asdict(row.tcp)
        for name in ("rtt", "rttvar", "rto", "min_rtt"):
            microseconds = tcp.pop(name)
            tcp[f"{name}_ms"] = None if microseconds is None else microseconds / 1000
    return {
        "kind": row.kind,
        "family": row.family,
        "type": row.type,
        "protocol": row.protocol or None,
        "state": row.state,
        "recv_queue": row.recv_queue,
        "send_queue": row.send_queue,
        "local": {"host": row.local.host, "port": row.local.port},
        "peer": {"host": row.peer.host, "port": row.peer.port} if has_peer(row) else None,
        "shutdown": row.shutdown or None,
        "namespace": row.namespace or None,
        "inode": row.inode or None,
        "peer_inode": row.peer_inode or None,
        "uid": row.uid,
        "processes": [dataclasses.asdict(owner) for owner in row.owners],
        "tcp": tcp,
        "options": row.options,
    }


def _watch(read: Any, interval: float, *, as_json: bool) -> None:
    clears = terminal.is_terminal(sys.stdout) and not as_json
    while True:
        started = time.monotonic()
        table: SocketTable = read()
        if as_json:
            rows = [as_object(row) for row in table.sockets]
            terminal.show_json({"time": time.time(), "sockets": rows})
        else:
            if clears:
                terminal.clear_screen()
            _print_table(table)
            if not clears:
                terminal.show()
        for each in table.notes if clears else ():
            terminal.note(each)
        sys.stdout.flush()
        time.sleep(max(0.0, started + interval - time.monotonic()))
