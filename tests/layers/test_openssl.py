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
from bothends.events import Established, Event, Failed
from bothends.layers import TlsSettings
from bothends.server import Server
from tests.interop.running import PATIENCE, Running
from tests.layers.keys import Keys
from tests.tools import find_tool, needs_tool

pytestmark = needs_tool("openssl")


def openssl(*words: str) -> list[str]:
    program = find_tool("openssl")
    assert program is not None
    return [program, *words]


@contextmanager
def serving(keys: Keys, told: list[Event], **settings: object) -> Iterator[tuple[Server, str]]:
    tls = TlsSettings(certificate=keys.server, **settings)  # type: ignore[arg-type]
    with bothends.serve("upper", "tls://127.0.0.1:0", tls=tls, observe=told.append) as server:
        yield server, f"127.0.0.1:{server.endpoints[0].port}"


def s_client(place: str, *words: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """One handshake, one input, and its end."""
    command = openssl("s_client", "-connect", place, "-servername", "example.org", *words)
    return subprocess.run(command, input=said, capture_output=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client_talks(keys: Keys, version: str) -> None:
    told: list[Event] = []
    with serving(keys, told, alpn=("echo/1",)) as (_, place):
        command = ("s_client", "-connect", place, "-CAfile", str(keys.ca), "-verify_return_error", "-quiet")
        more = ("-servername", "example.org", "-alpn", "echo/1", version)
        with Running(openssl(*command, *more)) as client:
            client.say(b"hello\n")
            client.line(b"HELLO")
    (established,) = [event for event in told if isinstance(event, Established)]
    assert established.agreed == f"TLS {version[-3:].replace('_', '.')}, SNI example.org, ALPN echo/1"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_no_version_below_1_2_is_accepted(keys: Keys, version: str) -> None:
    told: list[Event] = []
    with serving(keys, told) as (_, place):
        # At security level 0 OpenSSL still offers the old versions.
        done = s_client(place, version, "-cipher", "ALL:@SECLEVEL=0")
    failed = [event for event in told if isinstance(event, Failed)]
    if not failed:
        pytest.skip(f"this openssl can't offer it: {done.stderr.decode()}")
    assert done.returncode != 0
    assert b"protocol version" in done.stderr  # the alert has reached it
    assert "no version of TLS that both speak" in str(failed[0].error)


def test_ssl3_and_sslv2_hellos_are_told_apart(keys: Keys) -> None:
    told: list[Event] = []
    with (
        serving(keys, told) as (server, _),
        socket.create_connection(("127.0.0.1", server.endpoints[0].port or 0)) as c,
    ):
        c.settimeout(PATIENCE)
        c.sendall(b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10")  # CLIENT-HELLO of SSL 2
        assert c.recv(100) == b""
    assert [type(event.error).__name__ for event in told if isinstance(event, Failed)] == ["HandshakeFailed"]


def test_renegotiation_is_off(keys: Keys) -> None:
    told: list[Event] = []
    with (
        serving(keys, told) as (_, place),
        Running(openssl("s_client", "-connect", place, "-tls1_2")) as client,
    ):
        client.text(rb"Verify return code")
        client.say(b"R\n")
        client.process.wait(PATIENCE)
        assert client.process.returncode != 0
    assert "no renegotiation" in str(client.complained)


def test_sessions_are_resumed(keys: Keys, tmp_path: Path) -> None:
    session = str(tmp_path / "session")
    with serving(keys, []) as (_, place):
        with Running(openssl("s_client", "-connect", place, "-tls1_3", "-sess_out", session)) as client:
            client.text(rb"Verify return code")
            client.say(b"hello\n")
            client.text(rb"HELLO")  # the ticket has come before it
            client.say(b"Q\n")
            client.process.wait(PATIENCE)
        assert b"Reused, TLSv1.3" in s_client(place, "-tls1_3", "-sess_in", session, said=b"Q\n").stdout


def test_a_client_certificate_is_asked_for(keys: Keys) -> None:
    told: list[Event] = []
    with serving(keys, told, client_ca=keys.ca) as (_, place):
        done = s_client(place, "-tls1_2")
        assert b"handshake failure" in done.stderr
        command = openssl("s_client", "-connect", place, "-cert", str(keys.client), "-key", str(keys.client))
        with Running([*command, "-quiet"]) as client:
            client.say(b"hello\n")
            client.line(b"HELLO")
    assert [e.agreed for e in told if isinstance(e, Established)] == ["TLS 1.3, client CN=alice"]


@contextmanager
def s_server(keys: Keys, *words: str) -> Iterator[int]:
    """One that says everything again backwards; the port."""
    command = openssl(
        "s_server", "-accept", "127.0.0.1:0", "-cert", str(keys.server), "-key", str(keys.server)
    )
    with Running([*command, "-rev", *words]) as server:
        yield int(server.text(rb"ACCEPT 127\.0\.0\.1:(\d+)").group(1))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_our_client_and_s_server(keys: Keys, version: str) -> None:
    with (
        s_server(keys, version) as port,
        bothends.connect(f"tls://127.0.0.1:{port}", tls=TlsOptions(ca=keys.ca)) as connection,
    ):
        assert connection.request("hello") == b"olleh"
        assert connection.request("x" * 10_000 + "y") == b"y" + b"x" * 10_000


def test_our_client_takes_no_version_below_1_2(keys: Keys) -> None:
    old = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    with s_server(keys, *old) as port, pytest.raises(HandshakeFailed, match=r"versions? of TLS"):
        bothends.connect(f"tls://127.0.0.1:{port}", tls=TlsOptions(ca=keys.ca))
