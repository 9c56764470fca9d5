"""Run the commands of docs/how-to/tls.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.layers.howto import PageRunner, code_blocks, commands
from tests.tools import needs_tool


@needs_tool("openssl")
def test_tls_page_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PageRunner(tmp_path) as runner:
        for command in commands("tls.md"):
            if command.line.startswith("bothends serve"):
                server = runner.serve(command.line)
                fingerprint = server.error_line(rb"  TLS 1\.2 and 1\.3; .*SHA-256 ([0-9a-f]{64})")
                runner.environment["FINGERPRINT"] = fingerprint.group(1).decode()
            else:
                expected = [runner.substitute_ports(each) for each in command.expected_output]
                assert runner.run(command.line) == expected, command.line
        monkeypatch.chdir(tmp_path)
        (program,) = code_blocks("tls.md", "python")
        output: list[bytes] = []
        exec(program, {"print": output.append})
        assert output == [b"HELLO"]


def test_tls_page_messages_match_source() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in Path("src/bothends").rglob("*.py")
        if "layers" in str(path)
    )
    page = Path("docs/how-to/tls.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([^`]*)` \|", page, re.MULTILINE)
    assert len(table) == 5
    for message in table:
        assert message.partition('"')[0] in source
