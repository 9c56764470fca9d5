"""Compare two runs of the lab: their programs line by line, and what they did step by step."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from difflib import unified_diff
from http import HTTPStatus
from itertools import zip_longest
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bothends.lab.messages import MAX_PROGRAMS, Program, decode_with
from bothends.lab.request_body import read_body
from bothends.trace.comparison import RunStep, compare

_MAX_STEPS: Final = 4_000
_MAX_BODY: Final = 4 << 20  # bytes
_MAX_OUTPUT: Final = 100_000  # characters of a program
_MAX_OUTPUT_LINES: Final = 500  # that are compared: aligning takes time that grows with the product
_CONTEXT: Final = 1  # lines around a changed one
# What differs in any two runs: ephemeral ports (ip(7), ip_local_port_range), and the folder of the programs.
_CHANGING: Final = re.compile(r"\b(?:3[3-9]|[45]\d|60)\d{3}\b|/tmp/bothends-lab-[\w-]+/\d+/")


class ComparedRun(Struct):
    """A run that has ended, as its page knows it. `output`: what each program has printed."""

    programs: Annotated[list[Program], Meta(max_length=MAX_PROGRAMS)]
    steps: Annotated[list[RunStep], Meta(max_length=_MAX_STEPS)]
    output: Annotated[list[Annotated[str, Meta(max_length=_MAX_OUTPUT)]], Meta(max_length=MAX_PROGRAMS)] = []


class RunComparison(Struct, forbid_unknown_fields=True):
    """A request to compare two runs."""

    first: ComparedRun
    second: ComparedRun


_decoder: Final = msgspec.json.Decoder(RunComparison)


async def respond_to_comparison(request: Request) -> Response:
    """Answer a request of a page."""
    body = await read_body(request, _MAX_BODY)
    if body is None:
        return PlainTextResponse("the runs are too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        found = await asyncio.to_thread(compare_runs, parse_comparison(body))
    except msgspec.DecodeError as error:
        return PlainTextResponse(f"not two runs: {error}", HTTPStatus.BAD_REQUEST)
    return Response(msgspec.json.encode(found), media_type="application/json")


def parse_comparison(data: bytes) -> RunComparison:
    """Return a request. Raises msgspec.DecodeError."""
    found: RunComparison = decode_with(_decoder, data)
    return found


def compare_runs(request: RunComparison) -> dict[str, Any]:
    """Return the pairs of steps, and the lines of programs and of output that differ, for JSON."""
    pairs = compare(request.first.steps, request.second.steps)
    return {
        "pairs": [(each.lane, each.difference, each.first, each.second) for each in pairs],
        "programs": list(_changed_programs(request)),
        "outputs": list(_changed_outputs(request)),
    }


def _changed_programs(request: RunComparison) -> Iterator[dict[str, Any]]:
    for one, other in zip_longest(request.first.programs, request.second.programs):
        known = one or other
        if lines := _difference(_lines(one), _lines(other)):
            yield {"file": known.file if known is not None else "", "lines": lines}


def _changed_outputs(request: RunComparison) -> Iterator[dict[str, Any]]:
    for number, texts in enumerate(zip_longest(request.first.output, request.second.output, fillvalue="")):
        before, after = (_CHANGING.sub("", each).splitlines()[:_MAX_OUTPUT_LINES] for each in texts)
        if lines := _difference(before, after):
            yield {"program": number, "lines": lines}


def _difference(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    """Return the lines that differ: the mark of `diff -u`, and the line."""
    return [(each[:1], each[1:]) for each in unified_diff(before, after, n=_CONTEXT, lineterm="")][2:]


def _lines(program: Program | None) -> list[str]:
    if program is None:
        return []
    return [f"file: {program.file}", f"arguments: {program.arguments}", *program.text.splitlines()]
