"""What keeps a program from being judged."""

from __future__ import annotations

from bothends.errors import BothendsError


class NotReady(BothendsError):
    """The program didn't come to listen.

    Fields: `reason`, `complaint` (its standard error, escaped), `ended` (it runs no more).
    """

    def __init__(self, reason: str, complaint: str, *, ended: bool = False) -> None:
        super().__init__(reason, complaint)
        self.reason = reason
        self.complaint = complaint
        self.ended = ended

    def __str__(self) -> str:
        return f"{self.reason}: {self.complaint}" if self.complaint else self.reason
