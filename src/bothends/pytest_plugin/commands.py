"""Run bothends and other commands for a test."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import pytest

Command: TypeAlias = str | Sequence[str]

UNAVAILABLE: Final = 69  # sysexits.h, EX_UNAVAILABLE: how bothends says that the system permits something not
DEFAULT_TIMEOUT: Final = 30.0  # seconds


def words(command: Command) -> list[str]:
    """Return the words of a command; a string is split as a shell does."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]


def line(command: Command) -> str:
    """Return a command as one line for a shell."""
    return command if isinstance(command, str) else shlex.join(words(command))


def run_bothends(arguments: Sequence[str], *, stdin: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a verb to its end. Skips the test if the system does not permit what the verb does."""
    from bothends.osutil.reexec import self_command

    __tracebackhide__ = True
    with started([*self_command(), *arguments], stdin=subprocess.PIPE) as process:
        try:
            out, _ = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"bothends {shlex.join(arguments)}: not finished after {timeout:g} s")
    if process.returncode == UNAVAILABLE:
        pytest.skip(out.strip().splitlines()[-1])
    return subprocess.CompletedProcess(arguments, process.returncode, out)


@contextlib.contextmanager
def started(command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """Run a command in the block, with its output in one pipe; then end it and its children."""
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str], grace: float = 3.0) -> None:
    """End the process group of a command: with SIGTERM, after `grace` seconds with SIGKILL."""
    for number, timeout in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):  # children that outlive it
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
