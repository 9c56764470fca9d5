"""Interoperability with OpenSSL: s_client with a bothends server, s_server with a bothends client."""

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
    """Run s_client with this input until it exits."""
    command = openssl_command("s_client", "-connect", address, "-servername", "example.org", *args)
    return subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_exchanges_lines(keys: CertificateFiles, version: str) -> None:
    events: list[Event] = []
    with tls_server(keys, events, alpn=("echo/1",)) as (_, address):
        command = ("s_client", "-connect", address, "-CAfile", str(keys.ca), "-verify_return_error", "-quiet")
        options = ("-servername", "example.org", "-alpn", "echo/1", version)
        with Running(openssl_command(*command, *options)) as client:
            client.write_input(b"hello\n")
            client.line(b"HELLO")
    (established,) = [event for event in events if isinstance(event, HandshakeCompleted)]
    assert established.agreed == f"TLS {version[-3:].replace('_', '.')}, SNI example.org, ALPN echo/1"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_server_rejects_versions_below_tls12(keys: CertificateFiles, version: str) -> None:
    events: list[Event] = []
    with tls_server(keys, events) as (_, address):
        # OpenSSL offers the old versions only at security level 0.
        completed = s_client(address, version, "-cipher", "ALL:@SECLEVEL=0")
    failed = [event for event in events if isinstance(event, ServiceFailed)]
    if not failed:
        pytest.skip(f"this openssl can't offer it: {completed.stderr.decode()}")
    assert completed.returncode != 0
    assert b"protocol version" in completed.stderr  # from the alert
    assert "no common TLS version" in str(failed[0].error)


def test_sslv2_hello_fails_handshake(keys: CertificateFiles) -> None:
    events: list[Event] = []
    with (
        tls_server(keys, events) as (server, _),
        socket.create_connection(("127.0.0.1", server.endpoints[0].port or 0)) as c,
    ):
        c.settimeout(TIMEOUT)
        c.sendall(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10")  # CLIENT-HELLO of SSL 2
        assert c.recv(100) == b""
    assert [type(event.error).__name__ for event in events if isinstance(event, ServiceFailed)] == [
        "HandshakeFailed"
    ]


def test_renegotiation_is_disabled(keys: CertificateFiles) -> None:
    events: list[Event] = []
    with (
        tls_server(keys, events) as (_, address),
        Running(openssl_command("s_client", "-connect", address, "-tls1_2")) as client,
    ):
        client.text(rb"Verify return code")
        client.write_input(b"R\n")
        client.process.wait(TIMEOUT)
        assert client.process.returncode != 0
    assert "no renegotiation" in str(client.stderr)


def test_session_resumption(keys: CertificateFiles, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    with tls_server(keys, []) as (_, address):
        with Running(
            openssl_command("s_client", "-connect", address, "-tls1_3", "-sess_out", session)
        ) as client:
            client.text(rb"Verify return code")
            client.write_input(b"hello\n")
            client.text(rb"HELLO")  # the session ticket precedes it
            client.write_input(b"Q\n")
            client.process.wait(TIMEOUT)
        assert b"Reused, TLSv1.3" in s_client(address, "-tls1_3", "-sess_in", session, stdin=b"Q\n").stdout


def test_client_certificate_is_required(keys: CertificateFiles) -> None:
    events: list[Event] = []
    with tls_server(keys, events, client_ca=keys.ca) as (_, address):
        completed = s_client(address, "-tls1_2")
        assert b"handshake failure" in completed.stderr
        command = openssl_command(
            "s_client", "-connect", address, "-cert", str(keys.client), "-key", str(keys.client)
        )
        with Running([*command, "-quiet"]) as client:
            client.write_input(b"hello\n")
            client.line(b"HELLO")
    assert [e.agreed for e in events if isinstance(e, HandshakeCompleted)] == ["TLS 1.3, client CN=alice"]


@contextmanager
def s_server(keys: CertificateFiles, *args: str) -> Iterator[int]:
    """Context: an s_server that replies with each line reversed. Yields its port."""
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
    with (
        s_server(keys, *old) as port,
        pytest.raises(HandshakeFailed, match=r"no common TLS version|supports neither TLS"),
    ):
        bothends.connect(f"tls://127.0.0.1:{port}", tls=TlsOptions(ca=keys.ca))
