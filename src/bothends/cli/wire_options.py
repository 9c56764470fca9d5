"""`--wire` and `--host`: run a verb in a host of a wire.

    --host client                                   in a host of a running wire, started elsewhere
    --wire loss=5%,delay=40ms --host server='CMD'   on a new wire, which ends together with the verb

For a new wire, this process creates it and runs its own command line again in one of its hosts. The
option `--inside`, inserted after the verb, marks the second process. `serve`, `connect` and `bench` have both
options (`wire_options`); `check` has `--wire` alone; `trace --wire` runs only the traced programs in hosts.
"""

from __future__ import annotations

import functools
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.osutil.reexec import self_command

if TYPE_CHECKING:
    from bothends.wire import HostCommand

_KILLED_STATUS: Final = -9  # as Popen.returncode: killed by SIGKILL
_TOXIC_ALIASES: Final = {"delay": "latency", "rate": "bandwidth"}
_WIRE_SETTINGS: Final = ("mtu", "seed", "down", "no-icmp")

inside_option: Final = click.option("--inside", is_flag=True, hidden=True)


def wire_names() -> list[str]:
    """Return the names that the value of `--wire` may have before each `=`."""
    from bothends.toxics import registry

    return [each.replace("_", "-") for each in (*_TOXIC_ALIASES, *registry.TOXICS, *_WIRE_SETTINGS)]


class WirePath:
    """The value of `--wire`: toxics as in `bothends wire`, and the settings of the wire itself.

    In "loss=5%,delay=40ms,jitter=5ms,mtu=1300", a name that is neither a toxic nor one of the settings `mtu`,
    `seed`, `down` and `no-icmp` is an attribute of the toxic before it.

    Raises:
        click.UsageError: an unknown name, or an invalid setting.
    """

    def __init__(self, text: str) -> None:
        from bothends.toxics import registry

        self.toxics: dict[str, list[str]] = {}
        self.mtu, self.seed, self.icmp = 1500, secrets.randbits(32), True
        self.link_downs: list[str] = []
        last = ""
        for item in filter(None, (each.strip() for each in text.split(","))):
            key, _, value = item.partition("=")
            name = _TOXIC_ALIASES.get(key, key).replace("-", "_")
            if key in _WIRE_SETTINGS:
                self._apply_setting(key, value)
            elif name in registry.TOXICS:
                self.toxics.setdefault(name, []).append(value)
                last = name
            elif last:
                self.toxics[last][-1] = ",".join(filter(None, (self.toxics[last][-1], item)))
            else:
                nearest = suggest.nearest(key, wire_names())
                hint = f"did you mean {nearest!r}?" if nearest else "for example loss=5%,delay=40ms"
                raise click.UsageError(f"--wire: there is no toxic {key!r}; {hint}")

    def _apply_setting(self, key: str, value: str) -> None:
        if key == "down":
            self.link_downs.append(value)
        elif key == "no-icmp":
            self.icmp = False
        elif not value.isdecimal() or (key == "mtu" and not 68 <= int(value) <= 1500):
            wanted = "68 to 1500" if key == "mtu" else "a number"
            raise click.UsageError(f"--wire: {key}={value}: expected {wanted}")
        elif key == "mtu":
            self.mtu = int(value)
        else:
            self.seed = int(value)


def wire_options(
    default_host: str, *, is_server: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds `--wire` and `--host` to a verb. Place it below all other options.

    Args:
        default_host: name of the verb's own host, unless the command line gives another.
        is_server: the verb is the server, so the commands of the other hosts start once it listens.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, path: str | None, hosts: tuple[str, ...], inside: bool, **given: Any) -> None:
            if inside:
                remove_inside_option()
            elif path is not None:
                host, others = _parse_hosts(hosts, default_host)
                rerun_on_wire(
                    WirePath(path), host, others, is_server=is_server, quiet=given.get("quiet", False)
                )
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
        help="Run in a host of a new wire with faults, such as loss=5%,delay=40ms. --host adds other hosts.",
    ),
    click.option(
        "--host",
        "hosts",
        metavar="NAME[=CMD]",
        multiple=True,
        help="With --wire: another host and its command, or the name of this host. Without --wire: run in "
        "this host of a running wire (NAME@PID selects the wire).",
    ),
    inside_option,
)


def rerun_on_wire(
    path: WirePath, host: str, others: Sequence[HostCommand] = (), *, is_server: bool = False, quiet: bool
) -> NoReturn:
    """Run this command line again in a host of a new wire.

    Args:
        path: toxics and settings of the wire.
        host: name of the host for this command line.
        others: the other hosts; none for a host that talks to itself.
        is_server: start this command line before the others, instead of last.
        quiet: print warnings and errors only.

    Raises:
        click.exceptions.Exit: always, with the exit status of the last command.
        BothendsError: as `bothends.cli.wire.run`.
    """
    from bothends.cli.wire import parse_toxics, run
    from bothends.wire import HostCommand, build_topology

    own = HostCommand(host, tuple(_inside_command()), no_shell=True)
    topology = replace(build_topology([own, *others] if is_server else [*others, own]), mtu=path.mtu)
    status = run(
        topology,
        parse_toxics(path.toxics, bidirectional_only=topology.shape == "loop"),
        seed=path.seed,
        icmp=path.icmp,
        link_downs=path.link_downs,
        quiet=quiet,
    )
    raise click.exceptions.Exit(status)


def remove_inside_option() -> None:
    """Remove `--inside` from sys.argv, because bench results quote the command line as it was typed."""
    sys.argv.remove("--inside")


def _inside_command() -> list[str]:
    """Return this command line with `--inside` after its verb (`serve`, or `check server`)."""
    context = click.get_current_context()
    depth = 0
    while context.parent is not None:
        context, depth = context.parent, depth + 1
    arguments = sys.argv[1:]
    return [*self_command(), *arguments[:depth], "--inside", *arguments[depth:]]


def _parse_hosts(hosts: Sequence[str], default_host: str) -> tuple[str, list[HostCommand]]:
    """Return the name of the verb's own host, and the other hosts."""
    from bothends.wire import HostCommand

    others = []
    for each in hosts:
        name, has_command, command = each.partition("=")
        if has_command:
            others.append(HostCommand(name, (command,) if command.strip() else ()))
        else:
            default_host = name
    if not others:
        raise click.UsageError("--wire needs another host; for example: --host peer='CMD'")
    return default_host, others


def _enter_running_wire(hosts: Sequence[str]) -> None:
    """Fork into a host of a running wire.

    Returns in the child process. The parent waits for it and exits with its status.
    """
    from bothends.wire import attach

    name, has_pid, pid = hosts[0].partition("@")
    if len(hosts) > 1 or "=" in name:
        raise click.UsageError("without --wire, give one --host NAME: a host of a running wire")
    if has_pid and not pid.isdecimal():
        raise click.UsageError(f"--host {hosts[0]}: expected a process ID after @; for example {name}@1234")
    with attach.find_wire(name, int(pid) if pid else None) as found:
        status = found.enter(name)
        if status is None:
            return
        if status == _KILLED_STATUS:
            terminal.error(f"killed by SIGKILL, as every process in wire {found.pid} is when the wire ends")
    raise click.exceptions.Exit(status if status >= 0 else 128 - status)
