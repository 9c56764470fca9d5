"""What keeps a program from being judged."""

from __future__ import annotations

from dataclasses import dataclass

from bothends.errors import BothendsError


@dataclass(eq=False, repr=False)
class NotReady(BothendsError):
    """The program didn't come to listen.

    Fields: `reason`, `complaint` (its standard error, escaped), `ended` (it runs no more).
    """

    reason: str
    complaint: str
    ended: bool = False

    def __str__(self) -> str:
        return f"{self.reason}: {self.complaint}" if self.complaint else self.reason
