"""The start of `bothends impair` with an API that others can reach, and its token file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.cli import main
from tests.hostile.api.calls import call
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running, run

TOKEN = "0123456789abcdef"


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> str:
    """Run `impair`, which must fail at its start. Returns its one error line."""
    assert main.run(["impair", *arguments, "--for", "10ms"]) == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    return shown.err


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", ":0", "tcp://[::]:0", "tcp://:0?family=4"])
def test_other_hosts_need_a_token(capsys: pytest.CaptureFixture[str], endpoint: str) -> None:
    assert "give --api-token-file FILE" in error_of(capsys, "--api", endpoint, status=2)


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://localhost:0", "tcp://127.9.9.9:0"]
)
def test_loopback_needs_none(endpoint: str) -> None:
    assert main.run(["impair", "--api", endpoint, "--for", "10ms"]) == 0


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (TOKEN.encode(), 0o644, "other users can read the token"),
        (TOKEN.encode(), 0o620, "other users can read the token"),
        (b"", 0o600, "must have a token of 16 to 1024"),
        (b"short\n", 0o600, "must have a token of 16 to 1024"),
        (b"two words of a token", 0o600, "must have a token of 16 to 1024"),
        (b"\xff" * 20, 0o600, "must have a token of 16 to 1024"),
        ("größe".encode() * 5, 0o600, "must have a token of 16 to 1024"),
        (b"x" * 1025, 0o600, "must have a token of 16 to 1024"),
        (b"x" * 10 + b"\0" * 10, 0o600, "must have a token of 16 to 1024"),
    ],
)
def test_bad_token_file_is_one_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    error = error_of(capsys, "--api", "tcp://0.0.0.0:0", "--api-token-file", str(path), status=2)
    assert message in error
    assert content.decode("latin-1").strip()[:6] not in error or not content.strip()


def test_missing_token_file_is_one_error_with_a_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error = error_of(capsys, "--api", ":0", "--api-token-file", str(tmp_path / "token"), status=1)
    assert "umask 077" in error


def test_token_and_permissions_of_a_real_process(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    options = ["--api", "tcp://0.0.0.0:0", "--api-token-file", str(path), "--api-allow", "unix"]
    with Running([*BOTHENDS, "impair", *options]) as impair:
        port = int(impair.error_line(rb"  API: http://0\.0\.0\.0:(\d+)")[1])
        assert call(port, "GET", "/proxies")[0] == 401
        api = ["--api", f"127.0.0.1:{port}"]
        own = [*api, "--api-token-file", str(path)]
        run([*BOTHENDS, "impair", "add", "db", "127.0.0.1:0", "127.0.0.1:1", *api], status=1)
        run([*BOTHENDS, "impair", "add", "db", f"unix:{tmp_path}/socket", "127.0.0.1:1", *own])
        assert (tmp_path / "socket").is_socket()
        assert b"db" in run([*BOTHENDS, "impair", "list", *own])
        assert impair.stop() == 0
