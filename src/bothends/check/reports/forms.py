"""A result as JSON. Pure."""

from __future__ import annotations

import json

from bothends.check.results import Result


def as_json(result: Result) -> str:
    """One object, indented."""
    return json.dumps(result.as_object(), indent=2, ensure_ascii=False) + "\n"


def render(result: Result, form: str) -> str:
    """The text of a report in this form."""
    return {"json": as_json}[form](result)
