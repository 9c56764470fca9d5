"""Options that several verbs of `bothends check` have."""

from __future__ import annotations

from typing import Final

import click

REPORT_FORMATS: Final = ("text", "json", "junit", "tap", "gradescope", "classroom", "html")

allow_code_option: Final = click.option(
    "--allow-code", is_flag=True, help="Run the Python code that the contract names; only if you trust it."
)
