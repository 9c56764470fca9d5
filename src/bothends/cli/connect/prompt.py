"""`bothends connect` at a terminal: a line editor with history, and the received data above it.

1. Received data is shown at once, escaped, above the line being edited. A line that the peer has not
   terminated yet ("login: ") is shown directly above the prompt, and grows as data arrives.
2. ^D half-closes the connection; received data is shown until the peer's EOF. ^C exits with status 130.
   If the peer closes the connection, a note says so and the prompt ends.
3. On a datagram socket each line is one datagram, retransmitted until a reply arrives. An error that the
   kernel reports for one (ECONNREFUSED: no socket is bound to the port) is shown, and the prompt goes on,
   because the next datagram may succeed.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from bothends.cli import terminal
from bothends.cli.connect.options import ConnectOptions
from bothends.cli.connect.watchers import add_watcher, hex_dump_watcher
from bothends.client import blocking
from bothends.client.asyncio import AsyncConnection
from bothends.client.datagram_requests import RetryTimer
from bothends.client.receive_buffer import MAX_MESSAGE
from bothends.client.stdio_relay import TransferTotals
from bothends.errors import SystemCallFailed, TimeoutExpired
from bothends.escaping import Escaper, escape_text

# Characters of an unterminated line that are shown above the prompt; a longer one is printed and terminated.
MAX_PARTIAL_LINE = 1000


class PromptInterrupted(Exception):
    """^C. A KeyboardInterrupt raised inside a task would stop the event loop without cleaning up."""


class PersistentHistory(FileHistory):
    """A history file whose read and write errors are ignored."""

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines of earlier runs, or none if the file cannot be read."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append a line to the file, if it can be written."""
        with suppress(OSError):
            super().store_string(string)


def history() -> History:
    """Return the history of all prompts.

    It is stored in the user's state directory (XDG Base Directory Specification, 0.8), or kept in memory if
    that cannot be written.
    """
    try:
        state = os.environ.get("XDG_STATE_HOME", "")
        home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        path = home / "bothends" / "connect-history"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # 0600, because lines may contain secrets
    except (OSError, RuntimeError):  # RuntimeError: the user has no home directory
        return InMemoryHistory()
    return PersistentHistory(str(path))


def run_prompt(connection: blocking.Connection, options: ConnectOptions) -> TransferTotals:
    """Run the prompt on a connection until one side ends it.

    After ^D, `options.quit_after` and `options.timeout` bound the wait for the peer's EOF.

    Returns: the number of bytes sent and received.

    Raises:
        KeyboardInterrupt: ^C.
        ConnectionLost, TimeoutExpired: see `blocking.Connection`.
    """
    async_connection = AsyncConnection(connection.socket, connection.endpoint, timeout=None)
    core = async_connection.core
    screen = PromptScreen()
    core.watcher = connection.core.watcher
    if options.hex_dump:
        add_watcher(async_connection, hex_dump_watcher(screen.note, message_oriented=core.message_oriented))
    try:
        return asyncio.run(InteractiveSession(async_connection, screen, options).run())
    except PromptInterrupted:
        raise KeyboardInterrupt from None
    finally:
        screen.end()


class PromptScreen:
    """The terminal: the line being edited, and the output above it.

    A single prompt_toolkit application runs until ^D, and the terminal stays in raw mode all that time.
    In cooked mode (between two prompts, or while printing), the terminal's line discipline would consume
    a ^D, and it would be lost (termios(3), VEOF).
    """

    def __init__(self) -> None:
        self.typed_lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._escaper = Escaper()
        self._partial_line = ""  # received data without a newline yet; shown directly above the prompt
        self._at_line_start = True
        self._session: PromptSession[str] = PromptSession(
            self._prompt_text,
            history=history(),
            interrupt_exception=PromptInterrupted,
            enable_suspend=True,
            erase_when_done=True,
        )
        self._session.default_buffer.accept_handler = self._accept

    async def read_lines(self) -> None:
        """Put each typed line into `typed_lines`, and None after ^D.

        Raises PromptInterrupted for ^C.
        """
        try:
            await self._session.prompt_async(handle_sigint=False, set_exception_handler=False)
        except EOFError:
            pass
        self._print(self._partial_line)
        self._partial_line = ""
        self.typed_lines.put_nowait(None)

    def exit_prompt(self) -> None:
        """End the prompt, if it is running."""
        app = self._session.app
        if app.future is not None and not app.future.done():
            app.exit(result="")

    def show(self, data: bytes) -> None:
        """Show received data."""
        ended, newline, rest = (self._partial_line + self._escaper.feed(data)).rpartition("\n")
        if not self._session.app.is_running:
            self._print(ended + newline + rest)
            return
        self._partial_line = rest
        if len(rest) > MAX_PARTIAL_LINE:
            ended, newline, self._partial_line = ended + newline + rest, "\n", ""
        if newline:
            self._print_above(ended + newline)
        self._session.app.invalidate()

    def note(self, text: str, style: str = "quiet") -> None:
        """Show a note of this program, on a line of its own."""
        if self._session.app.is_running:
            self._session.app.renderer.erase()
            self._session.app.invalidate()
        elif not self._at_line_start:
            self._print("\n")
        terminal.note(text, style)

    def end(self) -> None:
        """Print the unterminated rest of the received data, and a newline after it."""
        self._print(self._partial_line + self._escaper.end())
        self._partial_line = ""
        if not self._at_line_start:
            self._print("\n")

    def _accept(self, buffer: Buffer) -> bool:
        line = buffer.text
        shown = "".join(c if c.isprintable() else escape_text(c) for c in line)
        self._print_above(f"{self._partial_line}\n> {shown}\n" if self._partial_line else f"> {shown}\n")
        self._partial_line = ""
        for each in line.split("\n"):  # pasted text may have several
            self.typed_lines.put_nowait(each)
        return False  # clears the line

    def _print_above(self, text: str) -> None:
        self._session.app.renderer.erase()
        self._print(text)
        self._session.app.invalidate()

    def _print(self, text: str) -> None:
        if text:
            terminal.show(text, end="", flush=True)
            self._at_line_start = text.endswith("\n")

    def _prompt_text(self) -> AnyFormattedText:
        return [("", f"{self._partial_line.expandtabs()}\n> " if self._partial_line else "> ")]


class InteractiveSession:
    """Exchange lines of the prompt and data of a connection."""

    def __init__(self, connection: AsyncConnection, screen: PromptScreen, options: ConnectOptions) -> None:
        self._connection = connection
        self._screen = screen
        self._options = options
        self._line_end = options.line_end(message_oriented=connection.core.message_oriented)
        self._totals = TransferTotals()
        self._pending_requests: deque[asyncio.Task[None]] = deque()

    async def run(self) -> TransferTotals:
        """Run until one side ends the connection; see `run_prompt`."""
        typing = asyncio.create_task(self._screen.read_lines())
        sending = asyncio.create_task(self._send())
        reading = asyncio.create_task(self._read())
        try:
            await _wait_for_first(typing, sending, reading)
            if typing.done() and not typing.exception():  # ^D: the lines typed before it are still sent
                await _wait_for_first(sending, reading)
            self._screen.exit_prompt()
            await typing
            if not reading.done():
                await self._drain_peer(sending, reading)
            self._screen.end()
            if reading.done():
                reading.result()
                self._screen.note("the peer closed the connection")
        finally:
            for task in (typing, sending, reading, *self._pending_requests):
                task.cancel()
            await asyncio.gather(typing, sending, reading, *self._pending_requests, return_exceptions=True)
        return self._totals

    async def _drain_peer(self, sending: asyncio.Task[None], reading: asyncio.Task[None]) -> None:
        """After ^D or a send error: half-close, and read until the peer's EOF or a timeout."""
        if self._connection.core.datagrams:
            await asyncio.gather(*self._pending_requests, return_exceptions=True)
            return
        if sending.exception():
            # A reset may follow data that has already arrived: show the data first.
            await asyncio.wait({reading})
            sending.result()
        if self._options.half_close and self._connection.core.supports_half_close:
            self._connection.half_close()
        quit_after, timeout = self._options.quit_after, self._options.timeout
        seconds = quit_after if quit_after is not None else timeout
        while not reading.done():
            before = self._totals.received
            await asyncio.wait({reading}, timeout=seconds)
            if self._totals.received == before and not reading.done():
                if quit_after is not None:
                    return
                raise TimeoutExpired(
                    self._connection.endpoint.label, "waiting for the peer's EOF", timeout or 0.0
                )

    async def _send(self) -> None:
        """Send the typed lines, until ^D."""
        core = self._connection.core
        while (line := await self._screen.typed_lines.get()) is not None:
            data = os.fsencode(line) + self._line_end
            if core.datagrams:
                self._pending_requests.append(asyncio.create_task(self._send_with_retries(data)))
            else:
                await self._connection.send(data)
                self._totals.sent += len(data)

    async def _read(self) -> None:
        """Show received data, until the peer's EOF."""
        core = self._connection.core
        while True:
            try:
                data = await self._connection.receive(MAX_MESSAGE)
            except SystemCallFailed as error:
                self._cancel_oldest_request()
                self._screen.note(str(error), "error")
                continue
            if not data and not core.datagrams:
                return
            self._totals.received += len(data)
            self._cancel_oldest_request()
            self._screen.show(data if not core.message_oriented or data.endswith(b"\n") else data + b"\n")

    async def _send_with_retries(self, message: bytes) -> None:
        """Send a datagram, and retransmit it until a reply arrives and cancels this task."""
        timer = RetryTimer(message, self._options.datagram_timeout, self._options.retries)
        try:
            while (wait := timer.next_timeout()) is not None:
                await self._connection.send(message)
                self._totals.sent += len(message)
                await asyncio.sleep(wait)
                self._screen.note(timer.describe())
        except SystemCallFailed as error:
            self._screen.note(str(error), "error")
        with suppress(ValueError):
            self._pending_requests.remove(asyncio.current_task())  # type: ignore[arg-type]

    def _cancel_oldest_request(self) -> None:
        """Treat the oldest request as answered, because a datagram does not name its request."""
        if self._pending_requests:
            self._pending_requests.popleft().cancel()


async def _wait_for_first(*tasks: asyncio.Task[None]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
