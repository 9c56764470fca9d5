"""`--wire` and `--host` of `serve`, `connect` and `bench`: the verb runs in a host of a wire.

    --host client                                   in a host of a wire that runs already, in another window
    --wire loss=5%,delay=40ms --host server='CMD'   on a wire of its own, which ends when the verb does

A wire of its own is made by us, and the verb is run once more inside, by its own command line with `--inside`
before it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from bothends.cli import terminal
from bothends.osutil.reexec import self_command

_KILLED_STATUS: Final = -9


def wire_options(
    default_host: str, *, is_server: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb both options. To stand below all others.

    Args:
        own: how the verb's own host is called, unless the command line says so.
        begins: it is the end that waits for others, which start when it listens.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, path: str | None, hosts: tuple[str, ...], inside: bool, **given: Any) -> None:
            if not inside and path is not None:
                _run_on_new_wire(
                    path, hosts, default_host, is_server=is_server, quiet=given.get("quiet", False)
                )
                return
            if inside:
                sys.argv.remove("--inside")  # results say how they were asked for, as it was typed
            elif hosts:
                _enter_running_wire(hosts)
            function(*args, **given)

        for option in reversed(_OPTIONS):
            option(run)
        return run

    return decorate


_OPTIONS: Final = (
    click.option(
        "--wire",
        "path",
        metavar="TOXICS",
        help="On a wire of its own that is like this: loss=5%,delay=40ms. --host says who else is on it.",
    ),
    click.option(
        "--host",
        "hosts",
        metavar="NAME[=CMD]",
        multiple=True,
        help="With --wire: a host, and what runs there. Without: be in this host of a wire that runs "
        "(NAME@PID: of that one).",
    ),
    click.option("--inside", is_flag=True, hidden=True),
)


def _enter_running_wire(hosts: Sequence[str]) -> None:
    """Go there. Returns in the host; whoever waits outside leaves with the status of what does the work."""
    from bothends.wire import attach

    name, has_pid, pid = hosts[0].partition("@")
    if len(hosts) > 1 or "=" in name:
        raise click.UsageError("without --wire there is one --host NAME: where to be, on a wire that runs")
    if has_pid and not pid.isdecimal():
        raise click.UsageError(f"--host {hosts[0]}: after @ stands the number of a process: {name}@1234")
    with attach.find_wire(name, int(pid) if pid else None) as found:
        status = found.enter(name)
        if status is None:
            return
        if status == _KILLED_STATUS:
            terminal.error(f"it was killed, as everything is that is in wire {found.pid} when that ends")
    raise click.exceptions.Exit(status if status >= 0 else 128 - status)


def _run_on_new_wire(
    text: str, hosts: Sequence[str], default_host: str, *, is_server: bool, quiet: bool
) -> None:
    """Run the same command line in a host of a new wire, and leave with the status of its last command."""
    from bothends.cli.wire import parse_toxics, run
    from bothends.cli.wire_path import WirePath
    from bothends.wire import HostCommand, build_topology

    path = WirePath(text)
    others = []
    for each in hosts:
        name, has_command, command = each.partition("=")
        if has_command:
            others.append(HostCommand(name, (command,) if command.strip() else ()))
        else:
            default_host = name
    if not others:
        raise click.UsageError("who else is on that wire? For example: --host peer='CMD'")
    verb, *words = sys.argv[1:]
    mine = HostCommand(default_host, (*self_command(), verb, "--inside", *words), no_shell=True)
    layout = replace(build_topology([mine, *others] if is_server else [*others, mine]), mtu=path.mtu)
    status = run(
        layout,
        parse_toxics(path.toxics, bidirectional_only=False),
        seed=path.seed,
        icmp=path.icmp,
        link_downs=path.link_downs,
        quiet=quiet,
    )
    if status:
        raise click.exceptions.Exit(status)
