"""The profile for Wireshark: tshark accepts each line of it, and colours packets as it says."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from tests.tools import needs_tool

PROFILE = Path(__file__).resolve().parents[2] / "docs/wireshark/bothends"
SYN, PSH_ACK, RST = 0x02, 0x18, 0x04


def block(kind: int, body: bytes) -> bytes:
    """Return a block of pcapng."""
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def packet(flags: int, sequence: int, data: bytes, comment: bytes) -> bytes:
    """Return an enhanced packet block with a TCP segment from port 12000 to port 50000."""
    tcp = struct.pack("!HHIIBBHHH", 12000, 50000, sequence, 1, 5 << 4, flags, 512, 0, 0) + data
    address = bytes([127, 0, 0, 1])
    raw = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + address * 2 + tcp
    body = struct.pack("<IIIII", 0, 0, sequence, len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4)
    return block(6, body + (option(1, comment) if comment else b"") + option(0, b""))


@needs_tool("tshark")
def test_profile_colours_packets_and_shows_calls(tmp_path: Path) -> None:
    shutil.copytree(PROFILE, tmp_path / "wireshark/profiles/bothends")
    capture = tmp_path / "run.pcapng"
    capture.write_bytes(
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 101, 0, 0) + option(2, b"client") + option(0, b""))
        + packet(SYN, 0, b"", b"")
        + packet(PSH_ACK, 1, b"hi", b"from client: send")
        + packet(PSH_ACK, 3, b"ho", b"lost on the wire: loss")
        + packet(RST, 5, b"", b"")
    )
    variables = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    command = ["tshark", "-C", "bothends", "-r", str(capture)]

    def run(*more: str) -> tuple[list[str], str]:
        done = subprocess.run([*command, *more], env=variables, capture_output=True, text=True, check=True)
        complaints = [line for line in done.stderr.splitlines() if "Running as" not in line]
        return done.stdout.splitlines(), "\n".join(complaints)

    lines, complaints = run()
    assert complaints == ""  # of a preference or a colour rule that it does not know
    assert "client" in lines[1]  # the host, which is the interface
    assert lines[1].endswith("from client: send")
    colours, complaints = run("--color", "-T", "fields", "-e", "frame.coloring_rule.name")
    assert complaints == ""
    assert colours == ["Connection begins", "Data that a call sent", "Lost or dropped", "Reset"]
