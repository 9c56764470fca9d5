"""`bothends connect` at a terminal: a line with history and editing below, what the peer says above.

1. What comes is shown at once, escaped, above the line that is being typed. A line that the peer has
   not ended yet ("login: ") stands right above it, and grows as it comes.
2. ^D ends our side, and the peer's words are shown to its EOF. ^C leaves (130). The peer's close ends
   it with a word.
3. On a datagram socket each line is a datagram, sent again while no answer comes; an error that the
   system reports of one (nobody has the port open) is told, and the next may fare better.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from bothends.cli import terminal
from bothends.cli.connect.session import ConnectOptions, add_watcher, hex_dump_watcher
from bothends.client import blocking
from bothends.client.asyncio import AsyncConnection
from bothends.client.datagram_requests import RetryTimer
from bothends.client.receive_buffer import MAX_MESSAGE
from bothends.client.stdio_relay import TransferTotals
from bothends.errors import SystemCallFailed, TimeoutExpired
from bothends.escaping import Escaper, escape_text

# What of an unfinished line stands above the prompt; a longer one is shown as a line of its own.
MAX_PARTIAL_LINE = 1000


class PromptInterrupted(Exception):
    """^C: a KeyboardInterrupt raised inside a task would leave the event loop on the spot."""


class PersistentHistory(FileHistory):
    """Lines of earlier runs, as far as the file can be read and written."""

    def load_history_strings(self) -> Iterable[str]:
        """See History."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """See History."""
        with suppress(OSError):
            super().store_string(string)


def history() -> History:
    """The history of all prompts, in the user's state directory (XDG Base Directory Specification, 0.8)."""
    try:
        state = os.environ.get("XDG_STATE_HOME", "")
        home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        path = home / "bothends" / "connect-history"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # lines may hold secrets
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return InMemoryHistory()
    return PersistentHistory(str(path))


def run_prompt(connection: blocking.Connection, options: ConnectOptions) -> TransferTotals:
    """Talk over a connection until one side ends it.

    After ^D, `manner.quit_after` and `manner.within` bound the wait for the peer.

    Raises:
        KeyboardInterrupt: ^C.
        ConnectionLost, TimeLimit: see `blocking.Connection`.
    """
    same = AsyncConnection(connection.socket, connection.endpoint, timeout=None)
    screen = PromptScreen()
    same.core.watcher = connection.core.watcher
    if options.hex_dump:
        add_watcher(same, hex_dump_watcher(screen.note, message_oriented=same.core.message_oriented))
    try:
        return asyncio.run(InteractiveSession(same, screen, options).run())
    except PromptInterrupted:
        raise KeyboardInterrupt from None
    finally:
        screen.end()


class PromptScreen:
    """The terminal: a line to type on, and what is shown above it.

    One application runs as long as lines are typed, and the terminal stays in raw mode all that time.
    Between two prompts, or while something is printed in cooked mode, a ^D would be taken by the
    terminal's own line discipline and be lost.
    """

    def __init__(self) -> None:
        self.typed_lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._escaper = Escaper()
        self._partial_line = (
            ""  # what has come of a line that has not ended; it stands right above the prompt
        )
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
        """Put what the user types into `typed`, and None behind it after ^D. Raises Interrupted for ^C."""
        try:
            await self._session.prompt_async(handle_sigint=False, set_exception_handler=False)
        except EOFError:
            pass
        self._print(self._partial_line)
        self._partial_line = ""
        self.typed_lines.put_nowait(None)

    def exit_prompt(self) -> None:
        """No line is asked for any more."""
        app = self._session.app
        if app.future is not None and not app.future.done():
            app.exit(result="")

    def show(self, data: bytes) -> None:
        """Show what the peer sent."""
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
        """Show a word of ours."""
        if self._session.app.is_running:
            self._session.app.renderer.erase()
            self._session.app.invalidate()
        elif not self._at_line_start:
            self._print("\n")
        terminal.note(text, style)

    def end(self) -> None:
        """Show what is left, and end its line."""
        self._print(self._partial_line + self._escaper.end())
        self._partial_line = ""
        if not self._at_line_start:
            self._print("\n")

    def _accept(self, buffer: Buffer) -> bool:
        line = buffer.text
        shown = "".join(c if c.isprintable() else escape_text(c) for c in line)
        self._print_above(f"{self._partial_line}\n> {shown}\n" if self._partial_line else f"> {shown}\n")
        self._partial_line = ""
        for each in line.split("\n"):  # several, if they were pasted
            self.typed_lines.put_nowait(each)
        return False  # the line to type on is empty again

    def _print_above(self, text: str) -> None:
        self._session.app.renderer.erase()
        self._print(text)
        self._session.app.invalidate()

    def _print(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._at_line_start = text.endswith("\n")

    def _prompt_text(self) -> AnyFormattedText:
        return [("", f"{self._partial_line.expandtabs()}\n> " if self._partial_line else "> ")]


class InteractiveSession:
    """One conversation at the prompt."""

    def __init__(self, connection: AsyncConnection, screen: PromptScreen, options: ConnectOptions) -> None:
        self._connection = connection
        self._screen = screen
        self._options = options
        self._line_end = options.line_end(message_oriented=connection.core.message_oriented)
        self._totals = TransferTotals()
        self._pending_requests: deque[asyncio.Task[None]] = deque()

    async def run(self) -> TransferTotals:
        """Until one side ends it; see `talk`."""
        typing = asyncio.create_task(self._screen.read_lines())
        sending = asyncio.create_task(self._send())
        reading = asyncio.create_task(self._read())
        try:
            await _wait_for_first(typing, sending, reading)
            if typing.done() and not typing.exception():  # ^D: what was typed before is still sent
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
        """After ^D, or when nothing can be sent any more: the peer's words may go on."""
        if self._connection.core.datagrams:
            await asyncio.gather(*self._pending_requests, return_exceptions=True)
            return
        if sending.exception():
            # A reset may stand behind words that have come: they are shown first.
            await asyncio.wait({reading})
            sending.result()
        if self._options.half_close and self._connection.core.supports_half_close:
            self._connection.half_close()
        quit_after, silence = self._options.quit_after, self._options.timeout
        seconds = quit_after if quit_after is not None else silence
        while not reading.done():
            before = self._totals.received
            await asyncio.wait({reading}, timeout=seconds)
            if self._totals.received == before and not reading.done():
                if quit_after is not None:
                    return
                raise TimeoutExpired(
                    self._connection.endpoint.label, "waiting for the peer's EOF", silence or 0.0
                )

    async def _send(self) -> None:
        """Send what is typed, until ^D."""
        steps = self._connection.core
        while (line := await self._screen.typed_lines.get()) is not None:
            data = os.fsencode(line) + self._line_end
            if steps.datagrams:
                self._pending_requests.append(asyncio.create_task(self._send_with_retries(data)))
            else:
                await self._connection.send(data)
                self._totals.sent += len(data)

    async def _read(self) -> None:
        """Show what comes, until the peer's EOF."""
        steps = self._connection.core
        while True:
            try:
                data = await self._connection.receive(MAX_MESSAGE)
            except SystemCallFailed as refused:
                self._cancel_oldest_request()
                self._screen.note(str(refused), "error")
                continue
            if not data and not steps.datagrams:
                return
            self._totals.received += len(data)
            self._cancel_oldest_request()
            self._screen.show(data if not steps.message_oriented or data.endswith(b"\n") else data + b"\n")

    async def _send_with_retries(self, message: bytes) -> None:
        """Send a datagram, and again while no answer comes. Cancelled when one does."""
        asking = RetryTimer(message, self._options.datagram_timeout, self._options.retries)
        try:
            while (wait := asking.next_timeout()) is not None:
                await self._connection.send(message)
                self._totals.sent += len(message)
                await asyncio.sleep(wait)
                self._screen.note(asking.describe())
        except SystemCallFailed as refused:
            self._screen.note(str(refused), "error")
        with suppress(ValueError):
            self._pending_requests.remove(asyncio.current_task())  # type: ignore[arg-type]

    def _cancel_oldest_request(self) -> None:
        """Whatever came, the oldest question is taken to be answered: datagrams don't say more."""
        if self._pending_requests:
            self._pending_requests.popleft().cancel()


async def _wait_for_first(*tasks: asyncio.Task[None]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
