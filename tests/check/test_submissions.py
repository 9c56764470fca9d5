"""Programs as students hand them in: how they are built, which one runs, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from bothends.check.batch.build_recipes import find_recipe
from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all
from bothends.check.contract import parse
from bothends.check.suites.registry import cases
from bothends.errors import ConfigurationError
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script

FIRST_CASES: Final = {"tcp": "tcp-one-message", "udp": "udp-one-message"}
SERVE: Final = """
def serve(listener):
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rwb") as file:
            for line in file:
                file.write(line.upper())
                file.flush()
"""
ASKS_FOR_PORT: Final = f"""import socket
{SERVE}
port = int(input("Port? "))
name = input("Name? ")
serve(socket.create_server(("", port)))
"""


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def quick_contract(transport: str, server: str = "") -> str:
    """Return the text of a contract with one case only."""
    left_out = [each.id for each in cases(transport) if each.id != FIRST_CASES[transport]]
    framing = 'framing = "lines"\n' if transport == "tcp" else ""
    tables = f'{server}\n[answer]\nservice = "upper"\n'
    return f'transport = "{transport}"\n{framing}leave_out = {json.dumps(left_out)}\n{tables}'


def judge_folder(folder: Path, transport: str = "tcp", *, server: str = "") -> JudgedSubmission:
    """Build and judge a submission in one case, as a batch does."""
    settings = BatchSettings("server", quick_contract(transport, server), sandbox=False)
    [judged] = judge_all([folder], settings, folder.parent / "out", workers=1)
    return judged


def assert_passes(judged: JudgedSubmission) -> None:
    assert not judged.result.failed, format_failures(judged.result)
    assert judged.result.points == 1


def test_server_that_asks_for_its_port_is_judged(tmp_path: Path) -> None:
    text = quick_contract("tcp", '[server]\ninput = "{port}\\nme"')  # the last line needs no newline
    command = write_server_script(tmp_path, ASKS_FOR_PORT)[:-1]
    result = judge(command, parse(text, "asks.toml", "asks", tmp_path))
    assert not result.failed, format_failures(result)
    silent = judge(command, parse(quick_contract("tcp"), "asks.toml", "asks", tmp_path))
    assert failed_cases(silent) == {"tcp-one-message"}


def test_batch_types_what_the_manifest_or_the_contract_says(tmp_path: Path) -> None:
    manifest = 'run = "python3 server.py"\ninput = "{port}\\nme\\n"'
    folder = write_files(tmp_path / "one", {"server.py": ASKS_FOR_PORT, "check.toml": manifest})
    assert_passes(judge_folder(folder))
    assert_passes(judge_folder(folder, server='[server]\ninput = "wrong"'))
    (folder / "check.toml").unlink()
    assert_passes(judge_folder(folder, server='[server]\ninput = "{port}\\nme"'))


@pytest.mark.parametrize("value", ["5", '["{port}"]', f'"{"x" * 1001}"', '"\\u0000"'])
def test_manifest_with_another_input_is_refused(value: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"check.toml": f'run = "./server"\ninput = {value}'})
    with pytest.raises(ConfigurationError, match="input must be a string of at most 1,000 characters"):
        find_recipe(tmp_path, "server")
