"""The main command: imports, help, error lines and exit statuses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import click
import pytest

from bothends.cli import main, terminal
from bothends.errors import SystemCallFailed, TimeoutExpired, Unavailable


def bothends(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "bothends", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=30,
        check=False,
    )


def test_import_of_the_package_takes_no_module_of_python() -> None:
    code = "import sys; before = set(sys.modules); import bothends; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()) == {"bothends", "__future__"}


def test_help_imports_no_verb_module() -> None:
    code = (
        "import sys\n"
        "from bothends.cli.main import run\n"
        "status = run(['--help'])\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    imported = set(done.stderr.split())
    heavy = {"rich", "prompt_toolkit", "asyncio", "uvloop", "ssl", "importlib.metadata"}
    assert not imported & heavy
    assert {name for name in imported if name.startswith("bothends.cli.")} == {
        "bothends.cli.help_layout",
        "bothends.cli.main",
        "bothends.cli.terminal",
    }


def test_trace_imports_no_module_that_draws_before_there_is_a_picture() -> None:
    code = (
        "import sys\n"
        "from bothends.cli.main import run\n"
        "status = run(['trace', '--help'])\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    drawing = {name for name in done.stderr.split() if name.startswith("bothends.trace.rendering.")}
    assert drawing == {"bothends.trace.rendering.picture_style"}


def test_help_lists_every_verb_of_the_table() -> None:
    done = bothends("--help")
    assert done.returncode == 0
    for verb, (_, line) in main.VERBS.items():
        assert f"  {verb}" in done.stdout
        assert line in done.stdout


def test_without_verb_shows_help_and_exits_2() -> None:
    done = bothends()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: bothends" in done.stderr


def test_version() -> None:
    done = bothends("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("bothends 0.")


def test_unknown_verb_suggests_nearest() -> None:
    done = bothends("conect")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "bothends: there is no verb 'conect'; did you mean 'connect'?; see bothends --help\n"
    )


def test_unknown_option_is_one_line() -> None:
    done = bothends("--versio")
    assert done.returncode == 2
    assert done.stderr.startswith("bothends: no such option '--versio'")
    assert done.stderr.endswith("see bothends --help\n")
    assert done.stderr.count("\n") == 1


Raiser = Callable[[BaseException], None]


@pytest.fixture
def verb_that_raises(monkeypatch: pytest.MonkeyPatch) -> Raiser:
    """Return a function that makes `bothends serve` raise an exception."""

    def set_error(error: BaseException) -> None:
        @click.command
        def verb() -> NoReturn:
            raise error

        monkeypatch.setattr(main.VerbGroup, "get_command", lambda *_: verb)

    return set_error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (SystemCallFailed("connect", "tcp://h:1", 111), 1, "cannot connect tcp://h:1: ECONNREFUSED"),
        (Unavailable("open", "sctp://h:1", 93), 69, "cannot open sctp://h:1: EPROTONOSUPPORT"),
        (TimeoutExpired("tcp://h:1", "connecting", 2.0), 124, "timed out after 2 s while connecting"),
        (ValueError("odd\nthing"), 70, "internal error (please report): ValueError: odd thing"),
        (click.UsageError("No such thing."), 2, "no such thing; see bothends serve --help"),
        (click.ClickException("No."), 1, "bothends: no"),
    ],
)
def test_error_is_one_line_with_exit_status(
    verb_that_raises: Raiser, error: Exception, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises(error)
    assert main.run(["serve"]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line in shown.err
    assert shown.err.startswith("bothends: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (click.Abort(), 130), (click.exceptions.Exit(7), 7)]
)
def test_interrupt_and_exit_print_nothing(
    verb_that_raises: Raiser, error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises(error)
    assert main.run(["serve"]) == status
    assert capsys.readouterr() == ("", "")


def test_debug_variable_prints_traceback(
    verb_that_raises: Raiser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb_that_raises(ValueError("odd"))
    monkeypatch.setenv("BOTHENDS_DEBUG", "1")
    assert main.run(["serve"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_closed_stdout_exits_141_quietly() -> None:
    # 100,000 lines exceed the capacity of any pipe, so the program still writes when the reader closes it.
    code = (
        "import click, sys\n"
        "from bothends.cli import main\n"
        "verb = click.command(lambda: [print(number) for number in range(100_000)] and None)\n"
        "main.VerbGroup.get_command = lambda *_: verb\n"
        "sys.argv = ['bothends', 'serve']\n"
        "main.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 128 + signal.SIGPIPE


class FakeTerminal:
    """A stream whose isatty() is true."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
)
def test_has_colour(environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = FakeTerminal()
    assert (terminal.styled("x", "error", stream) != "x") == coloured
    assert terminal.styled("x", "", stream) == "x"
    assert terminal.styled("x", "error", None) == "x"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [("services",), ("sockets", "--json", str(os.getpid())), ("--help",), ("new", "server", "--show")],
)
def test_full_disk_is_no_internal_error(arguments: tuple[str, ...], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bothends", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=30,
            check=False,
        )
    assert done.stderr == "bothends: cannot write to standard output: ENOSPC (No space left on device)\n"
    assert done.returncode == 1


def test_full_disk_elsewhere_is_an_internal_error(
    verb_that_raises: Raiser, capfd: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises(OSError(errno.ENOSPC, "No space left on device"))
    assert main.run(["serve"]) == 70
    assert "internal error" in capfd.readouterr().err
