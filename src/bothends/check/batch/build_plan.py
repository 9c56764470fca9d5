"""How a submission is built and run, as a value: what `build_recipes` finds, and `grading` carries out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROGRAM: Final = "{program}"


class NoRecipe(Exception):
    """The submission has no known way to be built and run; the message says why."""


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """How to get a program: the `build` commands, one after another, then the command to `run` it.

    `language`: as detected; `typed`: the lines that are typed on a server's standard input, which may have
    placeholders; empty for those of the contract; `remark`: what a report must say about the choice.

    The word `PROGRAM` in `run` is the executable that the build makes; without one, `run_otherwise` runs it.
    `fallback` is another plan, for a build that fails.
    """

    language: str
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    typed: str = ""
    remark: str = ""
    run_otherwise: tuple[str, ...] = ()
    fallback: BuildPlan | None = None
