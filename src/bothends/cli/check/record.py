"""`bothends check record`: write the dialogues of a right client and server as a contract."""

from __future__ import annotations

import asyncio
import errno
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bothends.cli import terminal
from bothends.cli.check.options import split_command
from bothends.cli.termination import raise_exit_on_signals, run_until_signal
from bothends.errors import SystemCallFailed, UsageError
from bothends.osutil.private_files import open_private

if TYPE_CHECKING:
    from bothends.check.recording.relay import Recording, RecordingDatagramRelay, RecordingStreamRelay
    from bothends.check.recording.talk_writer import RecordedScene

_LAST_REPLIES: Final = 3.0  # seconds for connections that are still open after the last client


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE.toml", help="Default: standard output."
)
@click.option("--udp", is_flag=True, help="Record datagrams; default: TCP.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="COMMAND",
    help="Client with {port} and {host}, run for one scene; may be repeated. Default: yours, until ^C.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port for the clients; default: any.")
@click.option(
    "--patience",
    "timeout",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    metavar="S",
    help="Timeout of a step in seconds when the scenes are played again; default 3.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def record(
    output: Path | None,
    udp: bool,
    clients: tuple[str, ...],
    port: int,
    timeout: float,
    command: tuple[str, ...],
) -> None:
    """Record the dialogues of your clients with a server that is right, and write them as a contract.

    bothends starts the server, stands between it and the clients, and writes what each sends as scenes.
    Each is then played against the server again, and what differs, such as a time, becomes a pattern.

    \b
    For example:
      bothends check record --output chat.toml -- ./server {port}
      bothends check record --client "./client {host} {port}" -- ./server {port}
    """
    from bothends.check.subjects.process import subreaper

    if output is not None and not output.absolute().parent.is_dir():  # fail before, not after
        raise SystemCallFailed("write", str(output), errno.ENOENT)
    commands = [split_command(client) for client in clients]
    for words in commands:
        if not any("{port}" in word for word in words):
            raise UsageError(f"the client {' '.join(words)!r} needs {{port}}, to connect to bothends")
    with raise_exit_on_signals(), subreaper():
        work = _record(command, commands, port, timeout, transport="udp" if udp else "tcp")
        text, failed = asyncio.run(run_until_signal(work))
    if output is None:
        terminal.show(text, end="")
    else:
        try:
            with open(open_private(output), "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise SystemCallFailed("write", str(output), error.errno or 0) from error
        terminal.note(f"wrote {output}; test with: bothends check server --contract {output} -- COMMAND")
    if failed:
        raise click.exceptions.Exit(1)


async def _record(
    command: Sequence[str], clients: Sequence[list[str]], port: int, timeout: float, *, transport: str
) -> tuple[str, bool]:
    """Record, and play again. Returns: the contract's text, and whether a scene fails then."""
    from bothends.check.contract import make_oracle
    from bothends.check.recording.relay import Recording, RecordingDatagramRelay, RecordingStreamRelay
    from bothends.check.recording.replay import ContractWriter, start_reference
    from bothends.check.recording.talk_writer import choose_framing
    from bothends.check.transcript import Transcript

    subject = await start_reference(command, transport)
    recording = Recording(separate=transport == "tcp" and not clients)
    try:
        async with subject.case_context(make_oracle(subject.contract), Transcript(), timeout) as context:
            kind = RecordingDatagramRelay if transport == "udp" else RecordingStreamRelay
            relay = kind(recording, context.server.endpoint)
            number = await relay.start("127.0.0.1", port)
            try:
                if clients:
                    await _run_clients(clients, number, recording, relay)
                else:
                    await _wait_interrupt(f"{transport}://127.0.0.1:{number}")
                await relay.wait_idle(_LAST_REPLIES)
            finally:
                await relay.close()
    finally:
        await subject.close()
    events = [each for each in recording.scenes if each]
    if not events:
        raise UsageError("no client has connected, so there is nothing to write")
    if recording.truncated:
        terminal.note("recorded the first 64 MiB only", "warning")
    framing, line_end = ("none", "\n") if transport == "udp" else choose_framing(events)
    writer = ContractWriter(command, transport=transport, framing=framing, line_end=line_end, timeout=timeout)
    scenes = _make_scenes(events, framing, datagrams=transport == "udp")
    failed = False
    for scene in scenes:
        patterns = await writer.settle(scene)
        state = scene.note or "passes when it is played again" + (
            f"; {patterns} texts vary" if patterns else ""
        )
        terminal.note(
            f"{scene.name}: {len(scene.lines)} lines; {state}", "warning" if scene.note else "quiet"
        )
        failed = failed or bool(scene.note)
    return writer.write(scenes), failed


def _make_scenes(events: Sequence[Sequence[object]], framing: str, *, datagrams: bool) -> list[RecordedScene]:
    from bothends.check.recording.talk_writer import RecordedScene, remember_values, write_lines

    scenes = []
    for number, each in enumerate(events, start=1):
        lines = write_lines(each, framing, datagrams=datagrams)  # type: ignore[arg-type]
        remember_values(lines)
        scenes.append(RecordedScene(f"recorded {number}", lines))
    return scenes


async def _run_clients(
    clients: Sequence[list[str]],
    port: int,
    recording: Recording,
    relay: RecordingStreamRelay | RecordingDatagramRelay,
) -> None:
    from bothends.check.recording.relay import RecordingDatagramRelay

    for client in clients:
        recording.begin_scene()
        if isinstance(relay, RecordingDatagramRelay):
            relay.next_scene()
        words = [word.replace("{port}", str(port)).replace("{host}", "127.0.0.1") for word in client]
        try:
            process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL)
        except OSError as error:
            raise SystemCallFailed("run", words[0], error.errno or 0) from error
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status:
            terminal.note(f"{shlex.join(words)}: exit status {status}", "warning")
        await relay.wait_idle(_LAST_REPLIES)


async def _wait_interrupt(endpoint: str) -> None:
    """Wait for ^C."""
    terminal.note(f"connect your clients to {endpoint}; ^C ends the recording")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        await stop.wait()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
