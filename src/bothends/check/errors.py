"""What keeps a program from being judged."""

from __future__ import annotations

from dataclasses import dataclass

from bothends.errors import BothendsError


@dataclass(eq=False, repr=False)
class NotListening(BothendsError):
    """The program didn't come to listen.

    Fields: `reason`, `complaint` (its standard error, escaped), `ended` (it runs no more).
    """

    reason: str
    stderr_tail: str
    exited: bool = False

    def __str__(self) -> str:
        return f"{self.reason}: {self.stderr_tail}" if self.stderr_tail else self.reason
