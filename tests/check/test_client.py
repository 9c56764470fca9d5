"""Judging clients: a correct one and a textbook one."""

from __future__ import annotations

import sys
from pathlib import Path

from bothends.check.case import Verdict
from tests.check.helpers import failed_cases, format_failures, judge_client

TEXTBOOK_CLIENT = """
import sys
from socket import *
c = socket(AF_INET, SOCK_STREAM)
c.connect((sys.argv[1], int(sys.argv[2])))
sentence = input('Input lowercase sentence: ')
c.send((sentence + '\\n').encode())
modified = c.recv(1024)
print('From Server:', modified.decode())
c.close()
"""

CORRECT_CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3) as c:
        replies = c.makefile('rb')
        for line in sys.stdin.buffer:
            c.sendall(line)
            reply = replies.readline()
            if not reply.endswith(b'\\n'):
                sys.exit('the server closed too early')
            sys.stdout.buffer.write(reply)
except OSError as error:
    sys.exit(f'cannot talk to the server: {error}')
"""


def client_command(folder: Path, text: str) -> list[str]:
    path = folder / "client.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, str(path), "{host}", "{port}"]


def test_correct_client_fails_nothing(tmp_path: Path) -> None:
    result = judge_client(client_command(tmp_path, CORRECT_CLIENT))
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.PASS] >= 11


def test_textbook_client_fails_expected_cases(tmp_path: Path) -> None:
    expected = ("client-several-messages", "client-dripped-reply", "client-long-reply", "client-cut-reply",
             "client-no-reply", "client-reset", "client-refused")  # fmt: skip
    result = judge_client(client_command(tmp_path, TEXTBOOK_CLIENT), "upper-tcp", *expected)
    assert failed_cases(result) == {*expected}, format_failures(result)
    refused = next(each for each in result.outcomes if each.case == "client-refused")
    assert "traceback" in refused.happened
