"""Compare two runs of the lab: their programs line by line, and what they did step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from difflib import unified_diff
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from bothends.lab.messages import MAX_PROGRAMS, Program, decode_with
from bothends.trace.comparison import RunStep, compare

_MAX_STEPS: Final = 4_000
_MAX_BODY: Final = 4 << 20  # bytes
_CONTEXT: Final = 1  # lines around a changed one


class ComparedRun(Struct):
    """A run that has ended, as its page knows it."""

    programs: Annotated[list[Program], Meta(max_length=MAX_PROGRAMS)]
    steps: Annotated[list[RunStep], Meta(max_length=_MAX_STEPS)]


class RunComparison(Struct, forbid_unknown_fields=True):
    """A request to compare two runs."""

    first: ComparedRun
    second: ComparedRun


_decoder: Final = msgspec.json.Decoder(RunComparison)


async def respond_to_comparison(request: Request) -> Response:
    """Answer a request of a page."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            return PlainTextResponse("the runs are too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    try:
        found = await asyncio.to_thread(compare_runs, parse_comparison(bytes(body)))
    except msgspec.DecodeError as error:
        return PlainTextResponse(f"not two runs: {error}", HTTPStatus.BAD_REQUEST)
    return Response(msgspec.json.encode(found), media_type="application/json")


def parse_comparison(data: bytes) -> RunComparison:
    """Return a request. Raises msgspec.DecodeError."""
    found: RunComparison = decode_with(_decoder, data)
    return found


def compare_runs(request: RunComparison) -> dict[str, Any]:
    """Return the pairs of steps, and the lines of programs that differ, for JSON."""
    pairs = compare(request.first.steps, request.second.steps)
    return {
        "pairs": [(each.lane, each.difference, each.first, each.second) for each in pairs],
        "programs": list(_changed_programs(request)),
    }


def _changed_programs(request: RunComparison) -> Iterator[dict[str, Any]]:
    for number in range(max(len(request.first.programs), len(request.second.programs))):
        one, other = (
            run.programs[number] if number < len(run.programs) else None
            for run in (request.first, request.second)
        )
        before, after = _lines(one), _lines(other)
        if before == after:
            continue
        found = [*unified_diff(before, after, n=_CONTEXT, lineterm="")][2:]
        known = one or other
        yield {
            "file": known.file if known is not None else "",
            "lines": [(each[:1], each[1:]) for each in found],
        }


def _lines(program: Program | None) -> list[str]:
    if program is None:
        return []
    return [f"arguments: {program.arguments}", *program.text.splitlines()]
