"""`bothends VERB ...`: find and run the verb; turn exceptions into error lines and exit statuses.

1. A verb is imported when it is called, not before, to start fast. So the summaries for `bothends --help` are
   in the table below, not in the modules of the verbs.
2. Exit statuses: 0 success; 1 failure; 2 usage error; 69 something required is missing (sysexits.h,
   EX_UNAVAILABLE); 70 internal error (EX_SOFTWARE); 124 timeout, as timeout(1); 130 interrupted; 141 the
   reader of stdout closed it, as a shell reports a program killed by SIGPIPE, so that `bothends ... | head`
   behaves like other commands under `set -o pipefail`.
3. Tracebacks are printed only if BOTHENDS_DEBUG=1 is set.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from bothends import suggest
from bothends.cli import terminal
from bothends.cli.help_layout import lay_out
from bothends.errors import BothendsError, SystemCallFailed, UnknownName

INTERNAL_ERROR: Final = 70
INTERRUPTED: Final = 130
STDOUT_CLOSED: Final = 141

# Verb -> its command ("module:attribute"), and its summary in `bothends --help`.
VERBS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("bothends.cli.serve.command:serve", "Serve a service on any endpoints, with any engine."),
    "connect": (
        "bothends.cli.connect.command:connect",
        "Connect to a server: at a prompt, in a pipe, or for one request.",
    ),
    "impair": (
        "bothends.cli.impair.command:impair",
        "Proxy that injects latency, loss, resets and other faults.",
    ),
    "trace": (
        "bothends.cli.trace.command:trace",
        "Draw the system calls of both ends and the packets between them.",
    ),
    "query": ("bothends.cli.query:query", "Answer a question about a saved trace."),
    "ping": ("bothends.cli.ping:ping", "Measure round-trip times with ICMP or UDP."),
    "wire": (
        "bothends.cli.wire:wire",
        "Run programs in isolated network namespaces, with faults.",
    ),
    "sockets": (
        "bothends.cli.sockets:sockets",
        "Show the socket table: addresses, state, round trips, process.",
    ),
    "why": (
        "bothends.cli.why:why",
        "Show which running programs wait for each other, and why.",
    ),
    "bench": (
        "bothends.cli.bench.command:bench",
        "Benchmark a server: requests per second, latency, errors.",
    ),
    "check": ("bothends.cli.check.command:check", "Test a client or a server in any language."),
    "attack": (
        "bothends.cli.attack:attack",
        "Attack a server of your own; an honest client is the judge.",
    ),
    "lab": ("bothends.cli.lab:lab", "Write, run and see both ends on a page in the browser."),
    "mcp": ("bothends.cli.mcp:mcp", "Let an assistant run both ends, ask why they hang, and check."),
    "new": ("bothends.cli.new:new", "Write a starter client or server in Python, C or Java."),
    "services": (
        "bothends.cli.services:services",
        "List the services: built-in, and of installed packages.",
    ),
    "engines": (
        "bothends.cli.engines:engines",
        "List the I/O engines: how a server waits for many clients.",
    ),
    "completion": (
        "bothends.cli.completion:completion",
        "Print the script that completes words in bash, zsh or fish.",
    ),
    "demo": ("bothends.cli.demo:demo", "Run a server and a client that exchange a few messages."),
}


class VerbGroup(click.Group):
    """A click group that imports a command of `VERBS` when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table, the most used first."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of a verb, or None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        return lay_out(getattr(importlib.import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. Raises UnknownName with the nearest verb."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-"):
            nearest = suggest.nearest(name, VERBS)
            raise UnknownName("verb", name, nearest, "see bothends --help")
        return super().resolve_command(ctx, args) if command is None else (name, command, args[1:])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs, without importing any."""
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
    """Both ends of the socket: run, trace, test and measure client-server programs.

    \b
    An endpoint is a URL: tcp://127.0.0.1:12000, udp://:12000, unix:///run/a.sock
    For example:
      bothends serve upper tcp://:12000
      bothends connect 127.0.0.1 12000
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        if "_BOTHENDS_COMPLETE" in os.environ:  # the shell asks for completions
            from bothends.cli.completion import answer_shell

            return answer_shell(command_line, os.environ["_BOTHENDS_COMPLETE"])
        # Not click's `main`, because it turns ^C and a closed stdout into exit status 1.
        with lay_out(command_line).make_context("bothends", list(arguments)) as context:
            command_line.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        terminal.show(error.format_message(), stream=sys.stderr)
        return error.exit_code
    except click.UsageError as error:
        verb = f" {arguments[0]}" if arguments and arguments[0] in VERBS else ""
        command = error.ctx.command_path if error.ctx is not None else f"bothends{verb}"
        message = _lowered(error.format_message())
        terminal.error(f"{message}{'' if message.endswith('?') else ';'} see {command} --help")
        return error.exit_code
    except click.ClickException as error:
        terminal.error(_lowered(error.format_message()))
        return error.exit_code
    except BothendsError as error:
        _print_traceback()
        if getattr(error, "errno", 0) == errno.EADDRINUSE:
            from bothends.cli.port_holders import with_holder

            error = with_holder(error)
        terminal.error(str(error))
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # This is stdout's: EPIPE of a socket is translated to ConnectionLost where the call is made.
        terminal.discard_stdout()
        return STDOUT_CLOSED
    except Exception as error:
        _print_traceback()
        if isinstance(error, OSError) and terminal.has_stdout_failed(error):
            return _report_stdout_failure(error)
        description = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        terminal.error(f"internal error (please report): {description}; BOTHENDS_DEBUG=1 shows the traceback")
        return INTERNAL_ERROR
    return 0


def main() -> None:
    """Run the program `bothends`."""
    terminal.prepare_streams()
    status = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        terminal.discard_stdout()
        status = STDOUT_CLOSED
    except OSError as error:
        status = _report_stdout_failure(error)
    sys.exit(status)


def _report_stdout_failure(error: OSError) -> int:
    """Report that standard output cannot be written, for example because the disk is full."""
    terminal.discard_stdout()
    failure = SystemCallFailed("write to", "standard output", error.errno or 0)
    terminal.error(str(failure))
    return failure.exit_status


def _print_traceback() -> None:
    if os.environ.get("BOTHENDS_DEBUG"):
        import traceback

        traceback.print_exc()


def _lowered(sentence: str) -> str:
    """Return a sentence of click as part of a longer one: no capital, no full stop."""
    if not sentence[1:2].isupper():  # not an acronym or a metavar
        sentence = sentence[:1].lower() + sentence[1:]
    return sentence.rstrip(".")
