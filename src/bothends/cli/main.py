"""`bothends VERB ...`: finds the verb, and is the one place where errors become lines and exit statuses.

1. A verb is imported when it is called, not before: `bothends --help` reads its lines from the table
   below, which is why they stand there and not in the verbs' own files.
2. Exit statuses: 0 fine; 1 the thing asked about failed; 2 usage; 69 something this needs isn't here;
   70 a mistake in bothends itself (sysexits.h, EX_SOFTWARE); 124 a time limit; 130 interrupted;
   141 nobody reads our stdout any more: what a shell shows for a program that SIGPIPE ended, so that
   `bothends ... | head` behaves under `set -o pipefail` as any other command does.
3. No traceback reaches a user who didn't ask for it with BOTHENDS_DEBUG=1.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.errors import BothendsError, UnknownName

INTERNAL_ERROR: Final = 70
INTERRUPTED: Final = 130
STDOUT_CLOSED: Final = 141

# Verb -> where its command is ("module:attribute"), and its line in `bothends --help`.
VERBS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("bothends.cli.serve.command:serve", "Serve a service on any endpoints, with any engine."),
    "connect": ("bothends.cli.connect.command:connect", "Talk to a server: at a prompt, in a pipe, or once."),
    "impair": ("bothends.cli.impair.command:impair", "Put a path that misbehaves as told between two ends."),
    "trace": (
        "bothends.cli.trace.command:trace",
        "Draw the calls of both ends and the packets between them.",
    ),
    "ping": ("bothends.cli.ping:ping", "Measure round trips: ICMP, or datagrams to an echo service."),
    "wire": ("bothends.cli.wire:wire", "Run programs in hosts of their own, on a path that misbehaves."),
    "sockets": (
        "bothends.cli.sockets:sockets",
        "Show the socket table: addresses, state, round trip, process.",
    ),
    "bench": ("bothends.cli.bench.command:bench", "Measure a server: requests a second, latency, faults."),
    "check": ("bothends.cli.check.command:check", "Judge a client or a server, in any language."),
    "new": ("bothends.cli.new:new", "Write a client or a server to begin with, in Python, C or Java."),
    "services": ("bothends.cli.list_plugins:services", "List the services that are built in."),
    "engines": ("bothends.cli.list_plugins:engines", "List the engines: the ways in which a server waits."),
    "demo": ("bothends.cli.demo:demo", "See both ends at work, in a few seconds."),
}


class VerbGroup(click.Group):
    """A group whose commands come from `VERBS`, each imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table: the most used first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was likely meant."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-"):
            nearest = suggest.nearest(name, VERBS)
            raise UnknownName("verb", name, nearest, "see bothends --help")
        return super().resolve_command(ctx, args) if command is None else (name, command, args[1:])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(
    cls=VerbGroup,
    subcommand_metavar="VERB [ARGUMENT]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Help on a verb, with an example: bothends VERB --help",
)
@click.version_option(package_name="bothends", message="bothends %(version)s")
def command_line() -> None:
    """Both ends of the socket: run client-server programs and talk to them.

    \b
    An endpoint is a URL: tcp://127.0.0.1:12000, udp://:12000, unix:///run/a.sock
    For example:
      bothends serve upper tcp://:12000
      bothends connect 127.0.0.1 12000
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line; what it leaves with."""
    try:
        if "_BOTHENDS_COMPLETE" in os.environ:  # the shell asks what could stand next
            command_line.main(list(arguments), prog_name="bothends")
        # click's own `main` would turn ^C and a closed stdout into exit status 1.
        with command_line.make_context("bothends", list(arguments)) as context:
            command_line.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "bothends"
        terminal.error(f"{_lowered(error.format_message())}; see {where} --help")
        return error.exit_code
    except click.ClickException as error:
        terminal.error(_lowered(error.format_message()))
        return error.exit_code
    except BothendsError as error:
        _print_traceback()
        terminal.error(str(error))
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # A socket's EPIPE has become ConnectionLost where it was met: this one is stdout's.
        terminal.discard_stdout()
        return STDOUT_CLOSED
    except Exception as error:
        _print_traceback()
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        terminal.error(f"a mistake in bothends itself: {what}; BOTHENDS_DEBUG=1 shows where")
        return INTERNAL_ERROR
    return 0


def main() -> None:
    """The program `bothends`."""
    terminal.prepare_streams()
    status = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        terminal.discard_stdout()
        status = STDOUT_CLOSED
    sys.exit(status)


def _print_traceback() -> None:
    if os.environ.get("BOTHENDS_DEBUG"):
        import traceback

        traceback.print_exc()


def _lowered(sentence: str) -> str:
    """click's sentence as a part of ours."""
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")
