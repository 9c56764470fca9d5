"""Write text of peers, programs and files into HTML, SVG, XML, CSV and JSON.

Rank 1, pure. Files are opened in a pager, a browser or a spreadsheet, and each interprets text differently.
Text may be escaped already; these functions leave escaped text unchanged.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

from bothends.escaping import escape_controls, escape_line

# Spreadsheets evaluate a cell that begins with one of these (OWASP, "CSV Injection"). Some skip blanks first.
_FORMULA: Final = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NOT_ASCII: Final = re.compile("[^\n\x20-\x7e]+")
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def markup(text: str) -> str:
    """Escape text for the content and the attributes of HTML, SVG and XML.

    XML 1.0 cannot represent most control characters, not even as references (section 2.2).
    """
    return html.escape(escape_controls(text))


def csv_cell(value: object) -> str:
    """Return a cell of a CSV file: one line, and an apostrophe before a text that looks like a formula."""
    text = escape_line(str(value))
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""Return a value as JSON. Letters stay, and invisible characters are written as `\u202e`."""
    written = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_ASCII.sub(lambda match: "".join(map(_json_character, match[0])), written)


def _json_character(character: str) -> str:
    return character if escape_line(character) == character else json.dumps(character)[1:-1]
