"""Services that are wrong for some messages only: the messages are such that each is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.contract import Contract, load, parse
from bothends.check.messages import make_message
from tests.check.helpers import failed_cases, format_failures, judge, judge_client, write_server_script

SERVER = """
import socket, sys, threading
def serve(connection):
    with connection, connection.makefile("rwb") as stream:
        for number, line in enumerate(stream):
            message = line[:-1]
            stream.write({reply} + b"\\n")
            stream.flush()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as connection:
    stream = connection.makefile("rwb")
    for line in sys.stdin.buffer:
        message = line[:-1]
        stream.write({request} + b"\\n")
        stream.flush()
        sys.stdout.buffer.write(stream.readline())
"""
ONLY = ("tcp-one-message", "tcp-several-messages")


def server(folder: Path, reply: str) -> list[str]:
    return write_server_script(folder, SERVER.replace("{reply}", reply))


@pytest.mark.spread("contract", "reply", "case", one_in=6)
@pytest.mark.parametrize(
    ("contract", "reply", "case"),
    [
        ("upper-tcp", "message.swapcase()", "tcp-one-message"),
        ("upper-tcp", "message.title()", "tcp-one-message"),
        ("upper-tcp", "message.capitalize()", "tcp-one-message"),
        ("upper-tcp", "message.upper().replace(b'0', b'O')", "tcp-one-message"),
        ("upper-tcp", "message.upper().replace(b'1', b'l')", "tcp-several-messages"),
        ("echo-tcp", "message.lower()", "tcp-one-message"),
        ("echo-tcp", "message.swapcase().swapcase().title()", "tcp-one-message"),
    ],
)
def test_wrong_service_fails(contract: str, reply: str, case: str, tmp_path: Path) -> None:
    loaded = load(contract) if contract != "echo-tcp" else line_echo()
    result = judge(server(tmp_path, reply), loaded, *ONLY)
    assert failed_cases(result) == {case}, format_failures(result)


@pytest.mark.parametrize("reply", ["message.upper()", "message.decode('utf-8').upper().encode()"])
def test_right_service_passes(reply: str, tmp_path: Path) -> None:
    result = judge(server(tmp_path, reply), "upper-tcp", *ONLY)
    assert not result.failed, format_failures(result)


def line_echo(more: str = "") -> Contract:
    text = f'transport = "tcp"\nframing = "lines"\n{more}\n[answer]\nservice = "echo"\n'
    return parse(text, "test", "echo", Path())


def test_text_contract_has_other_scripts(tmp_path: Path) -> None:
    utf8 = line_echo('payload = "utf-8"')
    wrong = "message.decode('utf-8').encode('ascii', 'replace')"
    result = judge(server(tmp_path, wrong), utf8, *ONLY)
    assert failed_cases(result) == {"tcp-several-messages"}, format_failures(result)
    assert failed_cases(judge(server(tmp_path, wrong), line_echo('payload = "ascii"'), *ONLY)) == set()


def test_client_that_changes_its_input_fails(tmp_path: Path) -> None:
    for request, failed in (("message", set()), ("message.lower()", {"client-one-message"})):
        path = tmp_path / "client.py"
        path.write_text(CLIENT.replace("{request}", request), encoding="utf-8")
        command = ["python3", str(path), "{host}", "{port}"]
        result = judge_client(command, "upper-tcp", "client-one-message")
        assert failed_cases(result) == failed, format_failures(result)


def test_messages_differ_and_respect_limit() -> None:
    for limit in (8, 30, 65_536):
        contract = line_echo(f"limit = {limit}")
        messages = [make_message(contract, number) for number in range(10)]
        assert all(len(message) <= limit for message in messages)
    assert len({make_message(contract, number) for number in range(1000)}) == 1000
    assert [len(make_message(contract, 7, size)) for size in (10, 1000)] == [10, 1000]
