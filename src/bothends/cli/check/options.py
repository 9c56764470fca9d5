"""Options that several verbs of `bothends check` have."""

from __future__ import annotations

import shlex
from typing import Final

import click

from bothends.errors import UsageError

REPORT_FORMATS: Final = ("text", "json", "junit", "tap", "gradescope", "classroom", "html")

allow_code_option: Final = click.option(
    "--allow-code", is_flag=True, help="Run the Python code that the contract names; only if you trust it."
)


def split_command(text: str) -> list[str]:
    """Split a command that is the value of an option, as a shell does.

    Raises:
        UsageError: a quotation has no end.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a command: {error}") from error
