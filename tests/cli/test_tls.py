"""`serve` and `connect` with TLS and PROXY headers."""

from __future__ import annotations

import contextlib
import signal
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bothends.client.blocking import connect
from bothends.client.tls import TlsOptions
from bothends.errors import HandshakeFailed
from tests.client.listening import serve_one
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.layers.keys import CertificateFiles

BOTHENDS = [sys.executable, "-m", "bothends"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return CertificateFiles(tmp_path_factory.mktemp("keys"))


def run(words: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*BOTHENDS, *words], input=stdin, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False
    )


def server(*words: str) -> Running:
    return Running([*BOTHENDS, "serve", *words])


def test_banner_command_connects(tmp_path: Path) -> None:
    with server("upper", "tls://127.0.0.1:0", "--tls-self-signed", "--alpn", "echo/1") as running:
        line = running.error_line(
            rb" +from here: +bothends (connect \S+ --tls-fingerprint [0-9a-f]{64})"
        ).group(1)
        done = run([*line.decode().split(), "-v", "--alpn", "echo/1"], b"hello\nthere")
        assert (done.returncode, done.stdout) == (0, b"HELLO\nTHERE")
        lines = done.stderr.decode().splitlines()
        assert lines[1].startswith("TLS 1.3, TLS_")
        assert lines[1].endswith(", ALPN echo/1")
        assert lines[2].startswith("certificate 0: 127.0.0.1, issued by 127.0.0.1, until ")
        assert lines[3] == f"fingerprint (SHA-256): {line.decode().split()[-1]}"
        running.error_line(rb"127\.0\.0\.1#\d+ TLS 1\.3, ALPN echo/1")
        running.line(rb"127\.0\.0\.1#\d+: hello")
        running.error_line(rb"127\.0\.0\.1#\d+ closed: the peer closed \(.*\)")


def test_log_distinguishes_handshake_failure() -> None:
    with server("upper", "tls://127.0.0.1:0", "--tls-self-signed") as running:
        endpoint = running.error_line(rb"  tls://(\S+)").group(1).decode()
        assert run(["connect", f"tcp://{endpoint}", "--send", "\x1b[2J"]).stdout == b""
        running.error_line(rb'\S+ handshake failed: not TLS: it began with "\\x1b\[2J\\n"')


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_reloads_certificate(tmp_path: Path, workers: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = CertificateFiles(tmp_path / "old"), CertificateFiles(tmp_path / "new")
    path = tmp_path / "server.pem"
    path.write_bytes(old.server.read_bytes())
    with server("upper", "tls://127.0.0.1:0", "--tls-cert", str(path), "--workers", workers) as running:
        endpoint = running.error_line(rb"  (tls://\S+)").group(1).decode()
        with connect(endpoint, tls=TlsOptions(ca=old.ca)) as early:
            assert early.request(b"a") == b"A"
            path.write_text("no certificate")
            running.process.send_signal(signal.SIGHUP)
            running.nth_error_line(rb"reload failed, still serving the old service: .*server\.pem.*", 1)
            path.write_bytes(new.server.read_bytes())
            running.process.send_signal(signal.SIGHUP)
            running.nth_error_line(rb"reloaded upper: .*", 1)
            for _ in range(2000):  # until all workers have reloaded it, which the log does not show
                with contextlib.suppress(HandshakeFailed):
                    connect(endpoint, tls=TlsOptions(ca=new.ca)).close()
                    break
            else:
                pytest.fail("a worker still presents the old certificate")
            assert early.request(b"b") == b"B"
        assert running.stop() == 0


def test_large_pipe_through_tls(keys: CertificateFiles) -> None:
    data = bytes(range(97, 122)) * 80_000
    with server("upper", "tls://127.0.0.1:0", "--tls-cert", str(keys.server)) as running:
        endpoint = running.error_line(rb"  (tls://\S+)").group(1).decode()
        done = run(["connect", endpoint, "--tls-ca", str(keys.ca)], data)
    assert done.returncode == 0
    assert done.stdout == data.upper()


def test_tls12_warns_about_half_close(keys: CertificateFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(keys.server)

    def script(plain: object) -> None:
        with context.wrap_socket(plain, server_side=True) as conn:  # type: ignore[arg-type]
            conn.sendall(conn.recv(100).upper())
            conn.unwrap()

    with serve_one(script) as port:
        done = run(["connect", f"tls://127.0.0.1:{port}", "--tls-ca", str(keys.ca)], b"hello\n")
    assert (done.returncode, done.stdout) == (0, b"HELLO\n")
    assert b"TLS 1.2 cannot half-close" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["serve", "upper", "tls://127.0.0.1:0"], 2, "give one (--tls-cert FILE), or generate one"),
        (
            ["serve", "upper", "tcp://127.0.0.1:0", "--tls-self-signed"],
            2,
            "TLS settings without a tls:// endpoint",
        ),
        (
            ["serve", "upper", "tls://127.0.0.1:0", "--tls-cert", "/nowhere"],
            1,
            "cannot read /nowhere: ENOENT",
        ),
        (["serve", "upper", "tls://127.0.0.1:0", "--tls-cert", "/dev/null"], 2, "is not valid PEM"),
        (["connect", "tcp://127.0.0.1:1", "--insecure"], 2, "does not speak TLS; tls:// does"),
        (["connect", "tls://127.0.0.1:1", "--tls-fingerprint", "abc"], 2, "64 hexadecimal digits"),
    ],
)
def test_usage_errors(words: list[str], status: int, message: str) -> None:
    done = run(words)
    assert done.returncode == status
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_proxy_header_over_tls() -> None:
    with server("upper", "proxyprotocol+tcp://127.0.0.1:0") as running:
        running.error_line(
            rb"  every connection starts with a PROXY header, trusted from 127\.0\.0\.0/8, ::1 only"
        )
        line = running.error_line(rb" +from here: +bothends (connect \S+)").group(1).decode()
        assert run([*line.split(), "--send", "hello"]).stdout == b"HELLO\n"
        running.error_line(rb"127\.0\.0\.1#\d+ PROXY v2")
    with server("upper", "proxyprotocol+tcp://127.0.0.1:0?trust=192.0.2.0/24") as running:
        endpoint = running.error_line(rb"  (proxyprotocol\S+)\?trust=192\.0\.2\.0/24").group(1).decode()
        assert run(["connect", endpoint, "--send", "hello"]).stdout == b""
        running.error_line(rb"\S+ handshake failed: the sender is not in a network whose PROXY headers .*")
