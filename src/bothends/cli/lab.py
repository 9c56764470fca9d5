"""`bothends lab`: a page on which a server and a client are written, run and seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends.cli import terminal

if TYPE_CHECKING:
    from bothends.lab.recording import LabFile


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--port", metavar="PORT", type=click.IntRange(0, 65535), default=0, help="Port; default: a free one."
)
@click.option(
    "--open/--no-browser",
    "opens",
    default=True,
    help="Open the page in the browser, or print its address only.",
)
@click.option(
    "--page",
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the run in FILE as a page that replays it without a server, and exit.",
)
@click.option(
    "--svg",
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the run in FILE as a picture, and exit.",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def lab(port: int, opens: bool, page: Path | None, svg: Path | None, file: Path | None) -> None:
    """Write a server and a client side by side on a page, run them, and see what they do.

    \b
    For example:
      bothends lab
      bothends lab --port 8000 --no-browser
      bothends lab run.lab                        the programs and the run that Save > File has saved
      bothends lab run.lab --page run.html

    The page is on 127.0.0.1, for the browser of this user only: the printed address has a token. Programs run
    in the sandbox: loopback only, no files but their own, bounded in time, memory and processes; without a
    sandbox nothing runs. ^C ends it.

    Exit status: 2 if FILE is not a file of the lab, 69 if there is no sandbox or no strace.
    """
    import asyncio
    import signal
    from collections.abc import Callable

    from bothends.errors import UsageError
    from bothends.trace.capture.tracees import find_strace

    if (page or svg) and file is None:
        raise UsageError("--page and --svg need a FILE that has a run")
    if not (page or svg):
        find_strace()
    from bothends.lab import server

    opened = _open(file) if file is not None else None
    if page or svg:
        assert opened is not None
        _export(opened, page, svg)
        return

    def on_ready(address: str, sandbox: str) -> None:
        terminal.show(f"lab  {address}", flush=True)
        terminal.note(f"{sandbox}; ^C ends the lab")
        if opens:
            import webbrowser

            webbrowser.open(address)

    async def main() -> None:
        def stop(exit_soon: Callable[[], None]) -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, exit_soon)

        with server.listen(port) as listener:
            await server.serve(listener, on_ready, stop, opened)

    asyncio.run(main())


def _open(path: Path) -> LabFile:
    """Return what a file of the lab holds. Raises SystemCallFailed, UsageError."""
    import msgspec

    from bothends.errors import SystemCallFailed, UsageError
    from bothends.lab import recording

    try:
        return recording.parse(path.read_bytes())
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not a file of the lab: {error}") from error


def _export(file: LabFile, page: Path | None, svg: Path | None) -> None:
    from bothends.errors import SystemCallFailed, UsageError
    from bothends.lab import recording

    if file.run is None:
        raise UsageError("the file has no run: save it again after one")
    for path, text in (
        (page, recording.render_page(file) if page else ""),
        (svg, recording.render_picture(file.run) if svg else ""),
    ):
        if path is None:
            continue
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
