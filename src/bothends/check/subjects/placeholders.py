"""Placeholders in the command of a program under test: {host}, {port}, {path}, {dir}, {message}."""

from __future__ import annotations

from collections.abc import Mapping


def fill_placeholders(word: str, values: Mapping[str, str]) -> str:
    """Return a word of a command with `{name}` replaced by its value.

    Other braces stay, because they may be part of the program's own syntax.
    """
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word
