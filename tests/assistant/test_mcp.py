"""`bothends mcp`, asked by the client of the official SDK over standard input and output."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bothends.cli import main
from tests.tools import needs_tool

mcp = pytest.importorskip("mcp")
from mcp.client.stdio import stdio_client  # noqa: E402

pytestmark = needs_tool("strace")
TIMEOUT = 90.0
SOURCE = Path(__file__).resolve().parent.parent.parent / "src"

HANGING_SERVER = """\
import socket
listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
request = b""
while not request.endswith(b"\\n"):
    request += connection.recv(1024)
connection.sendall(request.upper())
connection.close()
"""
CLIENT = """\
import socket
server = socket.create_connection(("127.0.0.1", 12000))
server.sendall(b"hello%s")
print("reply", server.recv(100))
server.close()
"""
# What a program in the sandbox must not reach: files of the user, other hosts, this machine's servers.
PROBE = """\
import os, socket
print("the file of the user exists:", os.path.exists(%r))
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error:
    print("network", error.errno)
server = socket.create_connection(("127.0.0.1", 12000))
server.sendall(b"hello\\n")
server.recv(100)
"""

Call = Callable[..., Awaitable[Any]]


def ask(talk: Callable[[Call], Awaitable[None]]) -> None:
    """Let a client talk to the server. `call` returns a tool's answer, or its error's text."""

    async def session() -> None:
        parameters = mcp.StdioServerParameters(
            command=sys.executable, args=["-m", "bothends", "mcp"], env={"PYTHONPATH": str(SOURCE)}
        )
        async with (
            asyncio.timeout(TIMEOUT),
            stdio_client(parameters) as streams,
            mcp.ClientSession(*streams) as client,
        ):
            await client.initialize()

            async def call(tool: str, **arguments: Any) -> Any:
                result = await client.call_tool(tool, arguments)
                text = "".join(each.text for each in result.content)
                return text if result.is_error or tool == "read_timeline" else json.loads(text)

            call.client = client  # type: ignore[attr-defined]
            await talk(call)

    asyncio.run(session())


def pair(server: str = HANGING_SERVER, client: str = CLIENT % "") -> list[dict[str, str]]:
    return [
        {"kind": "server", "file": "server.py", "text": server},
        {"kind": "client", "file": "client.py", "text": client},
    ]


def test_hang_is_explained_while_it_lasts_and_named_at_its_end() -> None:
    async def talk(call: Any) -> None:
        run = await call("run_programs", programs=pair(), seconds=50)
        assert run["state"] == "hangs"
        assert 'sendto(3, "hello", 5)' in run["timeline"]
        assert "Deadlock: each end waits for the other" in (await call("why", run=1))["waits"][0]
        rows = (await call("query_timeline", run=1, question="calls", calls=["sendto"]))["rows"]
        assert [(each["process"].split()[0], each["bytes"]) for each in rows] == [("client", 5)]
        part = await call("read_timeline", run=1, begin=0, end=rows[0]["at_ns"] / 1e9 - 0.001)
        assert "listen(3" in part
        assert "sendto" not in part
        over = await call("stop", run=1)
        assert (over["state"], over["ended_by"]) == ("ended", "Stop")
        assert "waits for the other" in over["findings"][0]["title"]
        assert over["programs"][1]["exit"] == "ended with the run"
        # Errors are in our words.
        assert "there is no run 7; kept: 1" in await call("why", run=7)
        assert "there is no question 'bad'" in await call("query_timeline", run=1, question="bad")

    ask(talk)


def test_programs_run_to_their_end_and_see_nothing_of_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")

    async def talk(call: Any) -> None:
        run = await call("run_programs", programs=pair(client=PROBE % str(secret)))
        assert (run["state"], run["ended_by"]) == ("ended", "the programs")
        output = run["programs"][1]["output"]
        assert "the file of the user exists: False" in output
        assert "network 101" in output  # ENETUNREACH
        assert run["programs"][1]["exit"] == "exit status 0"

    ask(talk)


def test_what_is_too_much_or_invalid_is_refused() -> None:
    async def talk(call: Any) -> None:
        names = [each.name for each in (await call.client.list_tools()).tools]
        assert names[:2] == ["run_programs", "why"]
        assert "give at least one server and one client" in await call(
            "run_programs", programs=pair()[:1] * 2
        )
        assert "less than or equal to 60" in await call("run_programs", programs=pair(), seconds=600)
        outside = [{**pair()[0], "file": "../server.py"}, pair()[1]]
        assert "invalid programs" in await call("run_programs", programs=outside)
        assert "at most 100000" in await call("run_programs", programs=pair(server="#" * 100_001))
        contract = await call("check_program", program=pair()[0], contract="/etc/passwd")
        assert "must be the name of a built-in contract" in contract
        listed = (await call("list_contracts"))["contracts"]
        assert "upper-tcp" in [each["contract"] for each in listed]

    ask(talk)


@pytest.mark.slow
def test_program_is_checked_against_a_contract() -> None:
    async def talk(call: Any) -> None:
        text = HANGING_SERVER.replace("import socket", "import socket, sys").replace(
            "12000", "int(sys.argv[1])"
        )
        report = await call(
            "check_program",
            program={"kind": "server", "file": "server.py", "text": text},
            contract="upper-tcp",
            cases=["tcp-one-message", "tcp-several-messages"],
        )
        verdicts = {each["case"]: each["verdict"] for each in report["outcomes"]}
        assert verdicts == {"tcp-one-message": "PASS", "tcp-several-messages": "FAIL"}
        failed = next(each for each in report["outcomes"] if each["verdict"] == "FAIL")
        assert failed["mistake"]
        assert any("client connects" in line for line in failed["transcript"])
        assert any("confined" in note for note in report["notes"])

    ask(talk)


def test_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.delitem(sys.modules, "bothends.assistant.server", raising=False)
    monkeypatch.setattr("bothends.cli.mcp.install_command", lambda extra: f"install {extra}")
    assert main.run(["mcp"]) == 69
    error = capsys.readouterr().err
    assert error == "bothends: cannot start mcp: the package mcp is not installed; install mcp\n"
