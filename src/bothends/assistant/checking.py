"""Check an assistant's program against a contract: `bothends check` in the sandbox, as its own process."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

from bothends.check import contract as contract_files
from bothends.errors import UsageError
from bothends.lab.messages import MAX_SOURCE, Program
from bothends.lab.sandboxed import kill_group
from bothends.osutil.reexec import self_command
from bothends.source_programs import find_file_recipe
from bothends.trace.capture.tracees import split_words

TIMEOUT: Final = 180.0  # seconds of a whole check
_MAX_REPORT: Final = 8 << 20  # bytes
_MAX_PROBLEM: Final = 2000  # characters of the end of its errors
_CHUNK: Final = 64 << 10  # bytes of one read: StreamReader.read returns what there is, not all that will come
_MAX_CASES: Final = 64
_CASE_KEYS: Final = ("detail", "stimulus", "expectation", "expected", "happened", "mistake", "why")
_MAX_TRANSCRIPT: Final = 40  # lines


async def check_program(
    kind: Literal["server", "client"],
    contract: str,
    program: Program,
    cases: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the verdicts about a program. Raises UsageError if it or the contract is invalid."""
    if "/" in contract or contract.endswith((".toml", ".py")):
        raise UsageError("contract must be the name of a built-in contract, not a file")
    if len(program.text) > MAX_SOURCE:
        raise UsageError(f"a program has at most {MAX_SOURCE:,} characters")
    with tempfile.TemporaryDirectory(prefix="bothends-assistant-") as name:
        folder = Path(name) / "program"
        folder.mkdir()
        file = folder / program.file
        file.write_text(program.text, encoding="utf-8")
        recipe = find_file_recipe(file, folder)
        if recipe.build:
            raise UsageError(
                f"{recipe.language} is compiled; here, only scripts are checked: run `bothends check` itself"
            )
        only = [word for case in cases[:_MAX_CASES] for word in ("--only", case)]
        command = [*self_command(), "check", kind, "--contract", contract, "--sandbox"]
        arguments = split_words(program.arguments) or (
            ["{port}"] if kind == "server" else ["{host}", "{port}"]
        )
        command += ["--folder", str(folder), *only, "--json", "--", *recipe.run, *arguments]
        status, output, problem = await _run(command, folder)
    try:
        report = json.loads(output)
    except ValueError:
        raise UsageError(problem.strip() or f"check ended with status {status} and no report") from None
    return _shortened(report)


def contracts() -> list[dict[str, str]]:
    """Return the built-in contracts: their names, transports and summaries."""
    loaded = (contract_files.load(name) for name in contract_files.builtin_names())
    return [{"contract": each.name, "transport": each.transport, "summary": each.summary} for each in loaded]


async def _run(command: Sequence[str], folder: Path) -> tuple[int, bytes, str]:
    """Run a command. Returns its status, its output, and the end of its errors.

    Raises:
        UsageError: it took too long, or its output is longer than _MAX_REPORT.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            output, problem = await asyncio.gather(
                _read_report(process.stdout), _read_end(process.stderr, 4 * _MAX_PROBLEM)
            )
            status = await process.wait()
    except TimeoutError:
        raise UsageError(f"the check took longer than {TIMEOUT:g} s; ask for fewer cases") from None
    finally:
        if process.returncode is None:
            kill_group(process.pid)
            await process.wait()
    return status, output, problem.decode("utf-8", "replace")[-_MAX_PROBLEM:]


async def _read_report(stream: asyncio.StreamReader) -> bytes:
    """Return all that a stream has. Raises UsageError if that is more than _MAX_REPORT."""
    data = bytearray()
    while part := await stream.read(_CHUNK):
        data += part
        if len(data) > _MAX_REPORT:
            raise UsageError(f"the report is longer than {_MAX_REPORT:,} bytes; ask for fewer cases")
    return bytes(data)


async def _read_end(stream: asyncio.StreamReader, size: int) -> bytes:
    """Read a stream to its end. Returns its last bytes."""
    data = b""
    while part := await stream.read(_CHUNK):
        data = (data + part)[-size:]
    return data


def _shortened(report: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a report what is empty, and all but the verdict of what passed."""
    outcomes = []
    for each in report.get("outcomes", []):
        shown = {"case": each["case"], "verdict": each["verdict"]}
        if each["verdict"] != "PASS":
            shown |= {key: each[key] for key in _CASE_KEYS if each.get(key)}
            lines = [" ".join(map(str, line.values())) for line in each["transcript"]]
            shown["transcript"] = lines[:_MAX_TRANSCRIPT]
        outcomes.append(shown)
    kept = {key: value for key, value in report.items() if key != "outcomes" and value not in ("", [], None)}
    return kept | {"outcomes": outcomes}
