"""Mutants of services: a key-value server with one mistake each fails at the line where the mistake shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.contract import Contract, parse
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script

CONTRACT = """
transport = "tcp"
framing = "lines"

[[scene]]
name = "stores"
talk = \"\"\"
a> SET Color Dark red
a< OK
a> SET Size 12
a< OK
a> GET Color
a< Dark red
a> GET Size
a< 12
a> GET Color
a< Dark red
a> SET Color Blue
a< OK
b> GET Color
b< Blue
a> GET Shape
a< NONE
a> COUNT
a< 2
\"\"\"
"""
SERVER = """
import socket, sys, threading
store = {}
def serve(connection):
    with connection, connection.makefile("rw", newline="\\n") as stream:
        for line in stream:
            command, _, rest = line.rstrip("\\n").partition(" ")
            key, _, value = rest.partition(" ")
            if command == "SET":
                store[key] = value
                reply = "OK"
            elif command == "GET":
                reply = store.get(key, "NONE")
            else:
                reply = str(len(store))
            stream.write(reply + "\\n")
            stream.flush()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
# Mistake -> the text of the right server, what replaces it, and the line of the scene that fails.
MUTANTS = {
    "swaps the case": (
        "reply = store.get(key, 'NONE')",
        "reply = store.get(key, 'none').swapcase()",
        "line 6",
    ),
    "forgets": ("store[key] = value", "pass", "line 6"),
    "one-shot": ("store.get(key, 'NONE')", "store.pop(key, 'NONE')", "line 10"),
    "first key only": ("store[key] = value", "store.setdefault('', value)", "line 6"),
    "one key for all": ("store.get(key, 'NONE')", "next(iter(store.values()), 'NONE')", "line 8"),
    "first value only": ("store[key] = value", "store.setdefault(key, value)", "line 14"),
    "off by one": ("str(len(store))", "str(len(store) + 1)", "line 18"),
    "cuts the value": ("store[key] = value", "store[key] = value[:-1]", "line 6"),
    "first word only": ("store[key] = value", "store[key] = value.split()[0]", "line 6"),
    "small letters": ("store[key] = value", "store[key.lower()] = value", "line 6"),
    "each client for itself": (
        "store[key] = value",
        "vars(threading.current_thread())[key] = value",
        "line 6",
    ),
    "empty for an unknown key": ("store.get(key, 'NONE')", "store.get(key, '')", "line 16"),
}


def contract(folder: Path) -> Contract:
    return parse(CONTRACT, "kv.toml", "kv", folder)


def test_right_service_passes(tmp_path: Path) -> None:
    result = judge(write_server_script(tmp_path, SERVER), contract(tmp_path), "scene-stores")
    assert not result.failed, format_failures(result)


@pytest.mark.spread("mistake", one_in=3)
@pytest.mark.parametrize("mistake", MUTANTS)
def test_wrong_service_fails_at_its_line(mistake: str, tmp_path: Path) -> None:
    right, wrong, line = MUTANTS[mistake]
    text = SERVER.replace('"NONE"', "'NONE'")
    assert right in text
    command = write_server_script(tmp_path, text.replace(right, wrong))
    result = judge(command, contract(tmp_path), "scene-stores", timeout=0.5)
    assert failed_cases(result) == {"scene-stores"}
    [failed] = [each for each in result.outcomes if each.case == "scene-stores"]
    assert failed.expected.startswith(f"{line}:"), failed.expected
    assert result.points == 0
