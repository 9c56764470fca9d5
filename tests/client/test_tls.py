"""The TLS client against servers of the standard library."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bothends.client import blocking
from bothends.client.asyncio import connect as connect_async
from bothends.client.tls import TlsOptions, TlsSocket, describe_session, fingerprint
from bothends.endpoints import Endpoint
from bothends.errors import (
    HandshakeFailed,
    ProtocolViolation,
    SystemCallFailed,
    TimeoutExpired,
    UnsupportedCombination,
    UsageError,
)
from bothends.layers.proxy_protocol import parse_header
from tests.client.listening import serve_one

TIMEOUT = 20.0

TLS12 = ssl.TLSVersion.TLSv1_2


class ClientKeys:
    """A test CA and its certificates for this machine."""

    def __init__(self, folder: Path) -> None:
        self.issuer = trustme.CA()
        self.ca = folder / "ca.pem"
        self.issuer.cert_pem.write_to_path(self.ca)
        self.valid = self.issuer.issue_cert("localhost", "127.0.0.1")
        self.client = folder / "client.pem"
        self.issuer.issue_cert(
            "alice@example.org", common_name="alice"
        ).private_key_and_cert_chain_pem.write_to_path(self.client)

    def context(self, issued: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (issued or self.valid).configure_cert(context)
        return context

    @property
    def options(self) -> TlsOptions:
        return TlsOptions(ca=self.ca)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ClientKeys:
    return ClientKeys(tmp_path_factory.mktemp("keys"))


def connect(
    port: int, options: TlsOptions, host: str = "127.0.0.1", scheme: str = "tls"
) -> blocking.Connection:
    endpoint = Endpoint(scheme, host=host, port=port)
    return blocking.connect(endpoint, timeout=TIMEOUT, tls=options if scheme == "tls" else None)


def echo(conn: ssl.SSLSocket) -> None:
    """Echo until the client's close_notify; then send a digest and close_notify."""
    total = hashlib.sha256()
    while data := conn.recv(65536):
        total.update(data)
        conn.sendall(data)
    conn.sendall(total.digest())
    conn.unwrap()


@contextmanager
def tls_server(context: ssl.SSLContext, handler: Callable[[ssl.SSLSocket], None] = echo) -> Iterator[int]:
    """Context: serve one client. Yields the port."""

    def handle(plain: Any) -> None:
        with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as conn:
            handler(conn)

    with serve_one(handle) as port:
        yield port


# Data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_version", [TLS12, ssl.TLSVersion.TLSv1_3])
def test_tls_request(keys: ClientKeys, max_version: ssl.TLSVersion) -> None:
    context = keys.context()
    context.maximum_version = max_version
    with (
        tls_server(context, lambda conn: conn.sendall(conn.recv(100))) as port,
        connect(port, keys.options) as connection,
    ):
        assert connection.request("hello") == b"hello"


def test_tls_exchange_half_closes(keys: ClientKeys) -> None:
    data = bytes(range(256)) * 16 * 1024
    with tls_server(keys.context()) as port, connect(port, keys.options) as connection:
        assert connection.exchange(data) == data + hashlib.sha256(data).digest()


def test_tls_exchange_asyncio(keys: ClientKeys) -> None:
    data = bytes(range(256)) * 4 * 1024

    async def client(port: int) -> bytes:
        endpoint = Endpoint("tls", host="127.0.0.1", port=port)
        async with connect_async(endpoint, timeout=TIMEOUT, tls=keys.options) as connection:
            return await connection.exchange(data)

    with tls_server(keys.context()) as port:
        assert asyncio.run(client(port)) == data + hashlib.sha256(data).digest()


def test_tls_concurrent_send_and_receive(keys: ClientKeys) -> None:
    data = bytes(range(256)) * 4 * 1024
    with tls_server(keys.context()) as port, connect(port, keys.options) as connection:

        def send() -> None:
            connection.send(data)
            connection.half_close()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert connection.receive_all() == data + hashlib.sha256(data).digest()
        sender.join(TIMEOUT)


def test_tls_close_notify_is_eof_on_open_connection(keys: ClientKeys) -> None:
    def handler(conn: ssl.SSLSocket) -> None:
        conn.sendall(b"all there is")
        conn.unwrap()  # returns when the client has closed too

    with tls_server(keys.context(), handler) as port, connect(port, keys.options) as connection:
        assert connection.receive_all() == b"all there is"


def test_tls_close_notify_is_delivered_to_slow_reader(keys: ClientKeys) -> None:
    """While the kernel has no room for close_notify, the client waits for POLLOUT."""
    size = 3_000_000
    received = []

    def handler(conn: ssl.SSLSocket) -> None:
        total = 0
        while data := conn.recv(500):
            total += len(data)
        received.append(total)
        conn.sendall(b"thanks")
        conn.unwrap()

    with tls_server(keys.context(), handler) as port:
        endpoint = Endpoint.parse(f"tls://127.0.0.1:{port}?sndbuf=8192")
        with blocking.connect(endpoint, timeout=TIMEOUT, tls=keys.options) as connection:
            connection.send(bytes(size))
            connection.half_close()
            assert connection.receive_all() == b"thanks"
    assert received == [size]


def test_tls12_half_close_is_rejected(keys: ClientKeys) -> None:
    context = keys.context()
    context.maximum_version = TLS12
    with (
        tls_server(context, lambda conn: conn.sendall(conn.recv(100))) as port,
        connect(port, keys.options) as connection,
    ):
        assert not connection.core.supports_half_close
        with pytest.raises(UnsupportedCombination, match=r"TLS 1\.2 does not support a half-close"):
            connection.half_close()
        assert connection.request("still open") == b"still open"


def test_tls_eof_without_close_notify_raises(keys: ClientKeys) -> None:
    def handler(conn: ssl.SSLSocket) -> None:
        conn.sendall(b"half a mess")

    with tls_server(keys.context(), handler) as port, connect(port, keys.options) as connection:
        assert connection.receive() == b"half a mess"
        with pytest.raises(ProtocolViolation, match="without close_notify"):
            connection.receive()


def test_tls_close_sends_close_notify(keys: ClientKeys) -> None:
    received: list[bytes] = []
    with tls_server(keys.context(), lambda conn: received.append(conn.recv(10))) as port:
        connect(port, keys.options).close()
    assert received == [b""]


# Verification ------------------------------------------------------------------------------------


def handshake_error(port: int, options: TlsOptions, host: str = "127.0.0.1") -> str:
    with pytest.raises(HandshakeFailed) as caught:
        connect(port, options, host)
    return str(caught.value)


def test_verify_unknown_issuer_fails(keys: ClientKeys) -> None:
    with tls_server(keys.context()) as port:
        message = handshake_error(port, TlsOptions())
    assert "the issuer of the server's certificate is not trusted" in message
    assert "--tls-ca FILE" in message


def test_verify_hostname_mismatch_fails(keys: ClientKeys) -> None:
    with tls_server(keys.context(keys.issuer.issue_cert("example.org"))) as port:
        assert "the server's certificate is for another address, not for 127.0.0.1" in handshake_error(
            port, keys.options
        )
    with tls_server(keys.context(keys.issuer.issue_cert("example.org"))) as port:
        message = handshake_error(port, keys.options, "localhost")
    assert "the server's certificate is for another host, not for localhost; --tls-name NAME" in message
    with (
        tls_server(keys.context(keys.issuer.issue_cert("example.org"))) as port,
        connect(port, TlsOptions(ca=keys.ca, name="example.org")) as connection,
    ):
        assert connection.exchange(b"") == hashlib.sha256().digest()


def test_verify_expired_certificate_fails(keys: ClientKeys) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    with tls_server(
        keys.context(keys.issuer.issue_cert("127.0.0.1", not_before=past, not_after=past))
    ) as port:
        assert "the server's certificate has expired; check the clocks" in handshake_error(port, keys.options)


def test_verify_self_signed_needs_fingerprint(tmp_path: Path) -> None:
    context, actual = _self_signed()
    for text in (actual, ":".join(actual[at : at + 2] for at in range(0, 64, 2)).upper()):
        with tls_server(context) as port, connect(port, TlsOptions(fingerprint=text)) as connection:
            assert connection.exchange(b"x")[:1] == b"x"
    with tls_server(context) as port:
        message = handshake_error(port, TlsOptions())
    assert "the server's certificate is self-signed" in message
    assert "--tls-fingerprint" in message
    with tls_server(context) as port:
        message = handshake_error(port, TlsOptions(fingerprint="0" * 64))
    assert f"the server's certificate has another fingerprint, {actual}" in message


def test_verify_disabled_accepts_any_certificate() -> None:
    with tls_server(_self_signed()[0]) as port, connect(port, TlsOptions(verify=False)) as connection:
        assert connection.exchange(b"x")[:1] == b"x"


def test_client_certificate_is_sent(keys: ClientKeys) -> None:
    context = keys.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys.ca)
    names: list[Any] = []

    def handler(conn: ssl.SSLSocket) -> None:
        names.append(conn.getpeercert())
        echo(conn)

    with (
        tls_server(context, handler) as port,
        connect(port, TlsOptions(ca=keys.ca, certificate=keys.client)) as connection,
    ):
        connection.exchange(b"x")
    assert "alice" in str(names[0]["subject"])
    with (
        tls_server(context, handler) as port,
        connect(port, keys.options) as connection,
        pytest.raises(ProtocolViolation, match="the peer requires a certificate"),
    ):
        connection.receive()


def test_describe_session_lines(keys: ClientKeys) -> None:
    context = keys.context()
    context.set_alpn_protocols(["echo/1"])
    with (
        tls_server(context) as port,
        connect(port, TlsOptions(ca=keys.ca, alpn=("h2", "echo/1")), "localhost") as connection,
    ):
        assert isinstance(connection.socket, TlsSocket)
        lines = list(describe_session(connection.socket))
        assert lines[0].startswith("TLS 1.3, TLS_")
        assert lines[0].endswith(", SNI localhost, ALPN echo/1")
        assert lines[-1] == f"fingerprint (SHA-256): {fingerprint(connection.socket)}"
        assert "issued by" in lines[1]
        connection.exchange(b"")


# Failed handshakes -------------------------------------------------------------------------------


def test_handshake_with_non_tls_server_fails() -> None:
    def handler(conn: Any) -> None:
        conn.sendall(b"220 mail.example.org \x1b[2J\r\n")
        conn.recv(4096)
        conn.recv(4096)

    with serve_one(handler) as port:
        message = handshake_error(port, TlsOptions())
    assert 'the server answered in plain text, not TLS: "220 mail.example.org' in message
    assert "\x1b" not in message
    assert "try tcp://" in message


def test_handshake_closed_by_server_fails() -> None:
    with serve_one(lambda conn: conn.recv(4096)) as port:
        assert "the server may not use TLS" in handshake_error(port, TlsOptions())


def test_handshake_with_silent_server_times_out() -> None:
    done = threading.Event()
    with serve_one(lambda _conn: done.wait(TIMEOUT)) as port:
        try:
            with pytest.raises(TimeoutExpired, match="sends nothing; it may not use TLS") as caught:
                blocking.connect(f"tls://127.0.0.1:{port}", timeout=0.3)
        finally:
            done.set()
    assert caught.value.exit_status == 124


def test_tls_options_invalid_files_raise(keys: ClientKeys, tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed, match="ENOENT"):
        TlsOptions(ca=tmp_path / "nothing").context()
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(UsageError, match="contains no PEM certificate"):
        TlsOptions(ca=junk).context()
    with pytest.raises(UsageError, match="not a PEM certificate with its key"):
        TlsOptions(certificate=keys.ca).context()
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        TlsOptions(fingerprint="abc")
    with pytest.raises(UsageError, match="does not speak TLS"):
        blocking.connect("tcp://127.0.0.1:1", tls=TlsOptions())


# PROXY header ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "version"), [("", 2), ("?header=1", 1), ("?header=2", 2)])
def test_proxy_header_is_sent_first(query: str, version: int) -> None:
    received: list[bytes] = []

    def handler(conn: Any) -> None:
        while data := conn.recv(4096):
            received.append(data)

    with (
        serve_one(handler) as port,
        blocking.connect(f"proxyprotocol+tcp://127.0.0.1:{port}{query}", timeout=TIMEOUT) as connection,
    ):
        addresses = connection.local, connection.peer
        connection.exchange(b"hello")
    found = parse_header(b"".join(received))
    assert found is not None
    header, size = found
    assert (header.version, header.source, header.destination) == (version, *addresses)
    assert b"".join(received)[size:] == b"hello"


def _self_signed() -> tuple[ssl.SSLContext, str]:
    from bothends.layers import self_signed

    return self_signed(["localhost", "127.0.0.1"])


def test_handshake_with_echo_server_fails() -> None:
    with serve_one(lambda conn: conn.sendall(conn.recv(4096))) as port:
        message = handshake_error(port, TlsOptions())
    assert "the server answered in plain text, not TLS: it sent the ClientHello back; try tcp://" in message
