"""Traces of strangers: a file with anything in it is read, or refused in one line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import pytest

from bothends.cli.trace.command import trace
from bothends.errors import UsageError
from tests.tools import needs_tool
from tests.trace.running import saved_lines

MUTATIONS: Final = 150
PAIR: Final = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
if os.fork():
    with listener.accept()[0] as connection:
        connection.sendall(connection.recv(100).upper())
    os.wait()
else:
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"hello\\x1b[31m")
        client.recv(100)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.sendto(b"x", listener.getsockname())
"""
VALUES: Final[list[Any]] = [
    None, 0, -1, 1, 2**63, 2**70, 1.5, float("nan"), True, "", "\x1b[31m", "\ud800", "\u202e", "a" * 5000, [],
    {}, [[]], ["x", None], ["127.0.0.1", 80], ["::1", 99999999999], "open", "unix",
]  # fmt: skip
PICTURES: Final = ("--svg", "--html")
OUTPUTS: Final = (*PICTURES, "--json", "--explain", "--all-calls")


def mutate(value: Any, generator: random.Random) -> Any:
    """Return a JSON value with one change somewhere in it."""
    if isinstance(value, dict) and value:
        key = generator.choice(list(value))
        change = generator.random()
        if change < 0.1:
            del value[key]
        else:
            value[key] = generator.choice(VALUES) if change < 0.3 else mutate(value[key], generator)
        return value
    if isinstance(value, list) and value and generator.random() < 0.7:
        at = generator.randrange(len(value))
        value[at] = mutate(value[at], generator)
        return value
    return generator.choice(VALUES)


def mutated(lines: list[str], generator: random.Random) -> list[str]:
    lines = list(lines)
    for _ in range(generator.choice([1, 1, 2, 5, 20])):
        at, change = generator.randrange(len(lines)), generator.random()
        if change < 0.8:
            lines[at] = json.dumps(mutate(json.loads(lines[at]), generator))
        elif change < 0.9:
            lines[at] = lines[generator.randrange(len(lines))]
        else:
            del lines[at]
    return lines


@needs_tool("strace")
def test_any_trace_is_read_or_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, file, picture = tmp_path / "original", tmp_path / "mutated", tmp_path / "picture"
    arguments = ["trace", "--save", str(original), "--", sys.executable, "-c", PAIR]
    subprocess.run([sys.executable, "-m", "bothends", *arguments], check=True, capture_output=True)
    lines = saved_lines(original)
    assert len(lines) > 20
    generator = random.Random(1)
    refused = 0
    for _ in range(MUTATIONS):
        file.write_text("\n".join(mutated(lines, generator)) + "\n", encoding="utf-8")
        output = generator.choice(OUTPUTS)
        options = [output, *([str(picture)] if output in PICTURES else [])]
        message = ""
        try:
            trace.main(["--open", str(file), *options], standalone_mode=False)
        except (UsageError, click.exceptions.Exit) as error:
            message, refused = str(error), refused + 1
        shown = "".join(capsys.readouterr()) + message
        if picture.exists():
            shown += picture.read_text(encoding="utf-8")
            picture.unlink()
        assert "\n" not in message
        assert not {"\x1b", "\u202e", "\ud800"} & {*shown}
    assert 0 < refused < MUTATIONS
