"""The pages docs/how-to/attack.md and add-an-attack.md: their commands and code are run."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import types
from pathlib import Path

import pytest

from bothends.attack.attacker import Attacker
from bothends.endpoints import Endpoint
from tests.interop.running import ROOT
from tests.pages import Page

GUIDES = ROOT / "docs" / "how-to"


@pytest.mark.slow
def test_attack_page_commands_show_documented_output(tmp_path: Path) -> None:
    Page(GUIDES / "attack.md", tmp_path).run()


def test_add_an_attack_guide_code_runs() -> None:
    text = (GUIDES / "add-an-attack.md").read_text(encoding="utf-8")
    code, line = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("lonely_newlines")
    exec(compile(code, "lonely_newlines.py", "exec", dont_inherit=True), module.__dict__)
    assert line.strip() == f"{module.__name__}.ATTACK,"
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            client, _ = server.accept()
            with client:
                received.append(client.recv(100))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        endpoint = Endpoint("tcp", host="127.0.0.1", port=server.getsockname()[1])

        async def run() -> int:
            attacker = Attacker(endpoint, b"hello\n", "1:lonely-newlines", 0.2)
            await module.ATTACK.run(attacker)
            attacker.close_all()
            return attacker.counts["connections"]

        assert asyncio.run(run()) > 0
        thread.join(10)
    assert received[0].startswith(b"\n")
