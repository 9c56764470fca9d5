"""SMTP: commands that no other protocol has, greetings and lists of extensions (RFC 5321). Pure."""

from __future__ import annotations

import re
from typing import Final

from bothends.escaping import escape

_COMMAND: Final = re.compile(
    rb"(?i)(EHLO|HELO|LHLO) [!-~]{1,255}\r\n\Z|(MAIL FROM|RCPT TO):<[^\r\n<>]{0,320}>"
)
_GREETING: Final = re.compile(rb"220[ -][!-~]{1,255} [^\r\n]{0,200}\bE?SMTP\b[^\r\n]{0,200}\r\n")
_EXTENSION: Final = re.compile(
    rb"250-[!-~][^\r\n]{0,300}\r\n(?:250-[^\r\n]{0,300}\r\n)*?"
    rb"250[ -](?:SIZE|8BITMIME|PIPELINING|STARTTLS|ENHANCEDSTATUSCODES|CHUNKING|DSN|SMTPUTF8)\b"
)


def recognise(data: bytes, _size: int) -> str:
    """Return the command or reply that bytes begin with; "" if they may be another protocol's."""
    if _COMMAND.match(data):
        line = data.partition(b"\r\n")[0]
        return f"SMTP {escape(line[:100])}"
    if _GREETING.match(data):
        return "SMTP 220 greeting"
    if _EXTENSION.match(data):
        return "SMTP 250 extensions"
    return ""
