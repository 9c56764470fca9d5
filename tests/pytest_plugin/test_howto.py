"""docs/how-to/pytest.md: its tests pass with a client that is right, and notice one that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pytest_plugin.test_fixtures import plugin_alone

__all__ = ["plugin_alone"]
pytest_plugins = ["pytester"]
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/pytest.md"
BLOCK = re.compile(r"^```python\n# (\w+)\.py\n(.*?)^```$", re.MULTILINE | re.DOTALL)

RIGHT = """
import socket

def ask(address, request):
    with socket.create_connection(address, 5) as client:
        client.sendall(request + b"\\n")
        answer = b""
        while not answer.endswith(b"\\n"):
            data = client.recv(100)
            if not data:
                raise OSError("cut")
            answer += data
        return answer[:-1]
"""
WRONG = """
import socket

def ask(address, request):
    with socket.create_connection(address, 5) as client:
        client.sendall(request + b"\\n")
        return client.recv(100).rstrip(b"\\n")
"""
SERVER = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as listener:
    print("ready", flush=True)
    with listener.accept()[0] as sock:
        sock.sendall(sock.recv(100).upper())
"""


@pytest.mark.parametrize(("client", "failed"), [(RIGHT, set()), (WRONG, {"test_faults.py"})])
def test_page_runs(pytester: pytest.Pytester, client: str, failed: set[str]) -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    assert set(blocks) == {"test_client", "test_faults", "test_path"}
    for name, text in {**blocks, "my_client": client, "server": SERVER}.items():
        (pytester.path / f"{name}.py").write_text(text)
    pytester.syspathinsert()
    found = pytester.runpytest_subprocess("-p", "bothends.pytest_plugin.fixtures", "-p", "no:cacheprovider")
    report = found.stdout.str()
    assert ("failed" in report) == bool(failed), report
    assert set(re.findall(r"^FAILED ([\w.]+)::", report, re.MULTILINE)) == failed
    assert "passed" in report
