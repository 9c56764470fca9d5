"""`bothends lab`: a page on which a server and a client are written, run and seen."""

from __future__ import annotations

import click

from bothends.cli import terminal


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
def lab(port: int, opens: bool) -> None:
    """Write a server and a client side by side on a page, run them, and see what they do.

    \b
    For example:
      bothends lab
      bothends lab --port 8000 --no-browser

    The page is on 127.0.0.1, for the browser of this user only: the printed address has a token. Programs run
    in the sandbox: loopback only, no files but their own, bounded in time, memory and processes; without a
    sandbox nothing runs. ^C ends it.

    Exit status: 69 if there is no sandbox or no strace.
    """
    import asyncio
    import signal
    from collections.abc import Callable

    from bothends.trace.capture.tracees import find_strace

    find_strace()
    from bothends.lab import server

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
            await server.serve(listener, on_ready, stop)

    asyncio.run(main())
