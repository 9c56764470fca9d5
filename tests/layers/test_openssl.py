"""OpenSSL's own programs at the other end: s_client in front of our server, s_server behind our client."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import bothends
from bothends.client.tls import TlsOptions
from bothends.errors import HandshakeFailed
from bothends.events import Event, HandshakeCompleted, ServiceFailed
from bothends.layers import TlsSettings
from bothends.server import Server
from tests.interop.running import TIMEOUT, Running
from tests.layers.keys import CertificateFiles
from tests.tools import find_tool, needs_tool

pytestmark = needs_tool("openssl")


def openssl_command(*args: str) -> list[str]:
    program = find_tool("openssl")
    assert program is not None
    return [program, *args]


@contextmanager
def tls_server(
    keys: CertificateFiles, events: list[Event], **settings: object
) -> Iterator[tuple[Server, str]]:
    tls = TlsSettings(certificate=keys.server, **settings)  # type: ignore[arg-type]
    with bothends.serve("upper", "tls://127.0.0.1:0", tls=tls, observe=events.append) as server:
        yield server, f"127.0.0.1:{server.endpoints[0].port}"


def s_client(address: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """One handshake, one input, and its end."""
    command = openssl_command("s_client", "-connect", address, "-servername", "example.org", *args)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_exchanges_lines(keys: CertificateFiles, version: str) -> None:
    told: list[Event] = []
    with tls_server(keys, told, alpn=("echo/1",)) as (_, place):
        command = ("s_client", "-connect", place, "-CAfile", str(keys.ca), "-verify_return_error", "-quiet")
        more = ("-servername", "example.org", "-alpn", "echo/1", version)
        with Running(openssl_command(*command, *more)) as client:
            client.write_input(b"hello\n")
            client.line(b"HELLO")
    (established,) = [event for event in told if isinstance(event, HandshakeCompleted)]
    assert established.agreed == f"TLS {version[-3:].replace('_', '.')}, SNI example.org, ALPN echo/1"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_server_rejects_versions_below_tls12(keys: CertificateFiles, version: str) -> None:
    told: list[Event] = []
    with tls_server(keys, told) as (_, place):
        # At security level 0 OpenSSL still offers the old versions.
        done = s_client(place, version, "-cipher", "ALL:@SECLEVEL=0")
    failed = [event for event in told if isinstance(event, ServiceFailed)]
    if not failed:
        pytest.skip(f"this openssl can't offer it: {done.stderr.decode()}")
    assert done.returncode != 0
    assert b"protocol version" in done.stderr  # the alert has reached it
    assert "no version of TLS that both speak" in str(failed[0].error)


def test_sslv2_hello_fails_handshake(keys: CertificateFiles) -> None:
    told: list[Event] = []
    with (
        tls_server(keys, told) as (server, _),
        socket.create_connection(("127.0.0.1", server.endpoints[0].port or 0)) as c,
    ):
        c.settimeout(TIMEOUT)
        c.sendall(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10")  # CLIENT-HELLO of SSL 2
        assert c.recv(100) == b""
    assert [type(event.error).__name__ for event in told if isinstance(event, ServiceFailed)] == [
        "HandshakeFailed"
    ]


def test_renegotiation_is_disabled(keys: CertificateFiles) -> None:
    told: list[Event] = []
    with (
        tls_server(keys, told) as (_, place),
        Running(openssl_command("s_client", "-connect", place, "-tls1_2")) as client,
    ):
        client.text(rb"Verify return code")
        client.write_input(b"R\n")
        client.process.wait(TIMEOUT)
        assert client.process.returncode != 0
    assert "no renegotiation" in str(client.stderr)


def test_session_resumption(keys: CertificateFiles, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    with tls_server(keys, []) as (_, place):
        with Running(
            openssl_command("s_client", "-connect", place, "-tls1_3", "-sess_out", session)
        ) as client:
            client.text(rb"Verify return code")
            client.write_input(b"hello\n")
            client.text(rb"HELLO")  # the ticket has come before it
            client.write_input(b"Q\n")
            client.process.wait(TIMEOUT)
        assert b"Reused, TLSv1.3" in s_client(place, "-tls1_3", "-sess_in", session, stdin=b"Q\n").stdout


def test_client_certificate_is_required(keys: CertificateFiles) -> None:
    told: list[Event] = []
    with tls_server(keys, told, client_ca=keys.ca) as (_, place):
        done = s_client(place, "-tls1_2")
        assert b"handshake failure" in done.stderr
        command = openssl_command(
            "s_client", "-connect", place, "-cert", str(keys.client), "-key", str(keys.client)
        )
        with Running([*command, "-quiet"]) as client:
            client.write_input(b"hello\n")
            client.line(b"HELLO")
    assert [e.agreed for e in told if isinstance(e, HandshakeCompleted)] == ["TLS 1.3, client CN=alice"]


@contextmanager
def s_server(keys: CertificateFiles, *args: str) -> Iterator[int]:
    """One that says everything again backwards; the port."""
    command = openssl_command(
        "s_server", "-accept", "127.0.0.1:0", "-cert", str(keys.server), "-key", str(keys.server)
    )
    with Running([*command, "-rev", *args]) as server:
        yield int(server.text(rb"ACCEPT 127\.0\.0\.1:(\d+)").group(1))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_exchanges_with_s_server(keys: CertificateFiles, version: str) -> None:
    with (
        s_server(keys, version) as port,
        bothends.connect(f"tls://127.0.0.1:{port}", tls=TlsOptions(ca=keys.ca)) as connection,
    ):
        assert connection.request("hello") == b"olleh"
        assert connection.request("x" * 10_000 + "y") == b"y" + b"x" * 10_000


def test_client_rejects_versions_below_tls12(keys: CertificateFiles) -> None:
    old = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    with s_server(keys, *old) as port, pytest.raises(HandshakeFailed, match=r"versions? of TLS"):
        bothends.connect(f"tls://127.0.0.1:{port}", tls=TlsOptions(ca=keys.ca))
