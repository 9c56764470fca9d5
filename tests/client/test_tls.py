"""TLS at the client's end, against servers of the standard library's making."""

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
from bothends.client.tls import TlsOptions, TlsSocket, fingerprint, terms
from bothends.endpoints import Endpoint
from bothends.errors import CallerError, CannotCarry, HandshakeFailed, StreamBroken, SystemRefused, TimeLimit
from bothends.layers.proxy_protocol import read_header
from tests.client.listening import serving

PATIENCE = 20.0

TLS12 = ssl.TLSVersion.TLSv1_2


class Keys:
    """An issuer, and what it issued for this machine."""

    def __init__(self, folder: Path) -> None:
        self.issuer = trustme.CA()
        self.ca = folder / "ca.pem"
        self.issuer.cert_pem.write_to_path(self.ca)
        self.good = self.issuer.issue_cert("localhost", "127.0.0.1")
        self.client = folder / "client.pem"
        self.issuer.issue_cert(
            "alice@example.org", common_name="alice"
        ).private_key_and_cert_chain_pem.write_to_path(self.client)

    def context(self, issued: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (issued or self.good).configure_cert(context)
        return context

    @property
    def options(self) -> TlsOptions:
        return TlsOptions(ca=self.ca)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def connect(
    port: int, options: TlsOptions, host: str = "127.0.0.1", scheme: str = "tls"
) -> blocking.Connection:
    where = Endpoint(scheme, host=host, port=port)
    return blocking.connect(where, timeout=PATIENCE, tls=options if scheme == "tls" else None)


def echo(conn: ssl.SSLSocket) -> None:
    """Until the client's close_notify; then a last word, and our own."""
    total = hashlib.sha256()
    while data := conn.recv(65536):
        total.update(data)
        conn.sendall(data)
    conn.sendall(total.digest())
    conn.unwrap()


@contextmanager
def secure(context: ssl.SSLContext, script: Callable[[ssl.SSLSocket], None] = echo) -> Iterator[int]:
    """Serves one client; the port."""

    def talk(plain: Any) -> None:
        with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as conn:
            script(conn)

    with serving(talk) as port:
        yield port


# Talking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [TLS12, ssl.TLSVersion.TLSv1_3])
def test_a_request(keys: Keys, most: ssl.TLSVersion) -> None:
    context = keys.context()
    context.maximum_version = most
    with (
        secure(context, lambda conn: conn.sendall(conn.recv(100))) as port,
        connect(port, keys.options) as connection,
    ):
        assert connection.request("hello") == b"hello"


def test_all_and_half_closed(keys: Keys) -> None:
    data = bytes(range(256)) * 16 * 1024
    with secure(keys.context()) as port, connect(port, keys.options) as connection:
        assert connection.exchange(data) == data + hashlib.sha256(data).digest()


def test_a_task_may_do_all_that_too(keys: Keys) -> None:
    data = bytes(range(256)) * 4 * 1024

    async def talk(port: int) -> bytes:
        where = Endpoint("tls", host="127.0.0.1", port=port)
        async with connect_async(where, timeout=PATIENCE, tls=keys.options) as connection:
            return await connection.exchange(data)

    with secure(keys.context()) as port:
        assert asyncio.run(talk(port)) == data + hashlib.sha256(data).digest()


def test_one_thread_sends_while_another_receives(keys: Keys) -> None:
    data = bytes(range(256)) * 4 * 1024
    with secure(keys.context()) as port, connect(port, keys.options) as connection:

        def send() -> None:
            connection.send(data)
            connection.finish()

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        assert connection.receive_all() == data + hashlib.sha256(data).digest()
        sender.join(PATIENCE)


def test_the_end_is_seen_even_if_the_connection_stays_open(keys: Keys) -> None:
    def script(conn: ssl.SSLSocket) -> None:
        conn.sendall(b"all there is")
        conn.unwrap()  # comes back when the client has closed as well

    with secure(keys.context(), script) as port, connect(port, keys.options) as connection:
        assert connection.receive_all() == b"all there is"


def test_the_end_reaches_a_peer_that_reads_slowly(keys: Keys) -> None:
    """While the kernel has no room for close_notify, it waits for some."""
    size = 3_000_000
    heard = []

    def script(conn: ssl.SSLSocket) -> None:
        total = 0
        while data := conn.recv(500):
            total += len(data)
        heard.append(total)
        conn.sendall(b"thanks")
        conn.unwrap()

    with secure(keys.context(), script) as port:
        where = Endpoint.parse(f"tls://127.0.0.1:{port}?sndbuf=8192")
        with blocking.connect(where, timeout=PATIENCE, tls=keys.options) as connection:
            connection.send(bytes(size))
            connection.finish()
            assert connection.receive_all() == b"thanks"
    assert heard == [size]


def test_tls12_cannot_half_close_and_says_so(keys: Keys) -> None:
    context = keys.context()
    context.maximum_version = TLS12
    with (
        secure(context, lambda conn: conn.sendall(conn.recv(100))) as port,
        connect(port, keys.options) as connection,
    ):
        assert not connection.steps.half_closes
        with pytest.raises(CannotCarry, match=r"TLS 1\.2 cannot carry an end of one direction"):
            connection.finish()
        assert connection.request("still open") == b"still open"


def test_a_cut_is_no_end(keys: Keys) -> None:
    def script(conn: ssl.SSLSocket) -> None:
        conn.sendall(b"half a mess")

    with secure(keys.context(), script) as port, connect(port, keys.options) as connection:
        assert connection.receive() == b"half a mess"
        with pytest.raises(StreamBroken, match="without close_notify"):
            connection.receive()


def test_closing_says_so(keys: Keys) -> None:
    heard: list[bytes] = []
    with secure(keys.context(), lambda conn: heard.append(conn.recv(10))) as port:
        connect(port, keys.options).close()
    assert heard == [b""]


# Whom we believe ---------------------------------------------------------------------------------


def refused(port: int, options: TlsOptions, host: str = "127.0.0.1") -> str:
    with pytest.raises(HandshakeFailed) as caught:
        connect(port, options, host)
    return str(caught.value)


def test_a_certificate_that_nobody_we_trust_issued(keys: Keys) -> None:
    with secure(keys.context()) as port:
        words = refused(port, TlsOptions())
    assert "nobody whom this machine trusts has issued its certificate" in words
    assert "--tls-ca FILE" in words


def test_a_certificate_for_someone_else(keys: Keys) -> None:
    with secure(keys.context(keys.issuer.issue_cert("example.org"))) as port:
        assert "its certificate is for another address, not for 127.0.0.1" in refused(port, keys.options)
    with secure(keys.context(keys.issuer.issue_cert("example.org"))) as port:
        words = refused(port, keys.options, "localhost")
    assert "its certificate is for another host, not for localhost; --tls-name NAME" in words
    with (
        secure(keys.context(keys.issuer.issue_cert("example.org"))) as port,
        connect(port, TlsOptions(ca=keys.ca, name="example.org")) as connection,
    ):
        assert connection.exchange(b"") == hashlib.sha256().digest()


def test_a_certificate_that_has_expired(keys: Keys) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    with secure(keys.context(keys.issuer.issue_cert("127.0.0.1", not_before=past, not_after=past))) as port:
        assert "its certificate has expired; is the clock right" in refused(port, keys.options)


def test_a_self_signed_certificate_is_accepted_by_its_fingerprint_only(tmp_path: Path) -> None:
    context, shown = _self_signed()
    for written in (shown, ":".join(shown[at : at + 2] for at in range(0, 64, 2)).upper()):
        with secure(context) as port, connect(port, TlsOptions(fingerprint=written)) as connection:
            assert connection.exchange(b"x")[:1] == b"x"
    with secure(context) as port:
        words = refused(port, TlsOptions())
    assert "its certificate is self-signed" in words
    assert "--tls-fingerprint" in words
    with secure(context) as port:
        words = refused(port, TlsOptions(fingerprint="0" * 64))
    assert f"its certificate is another one, with the fingerprint {shown}" in words


def test_insecure_believes_anybody() -> None:
    with secure(_self_signed()[0]) as port, connect(port, TlsOptions(check=False)) as connection:
        assert connection.exchange(b"x")[:1] == b"x"


def test_who_we_are(keys: Keys) -> None:
    context = keys.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys.ca)
    names: list[Any] = []

    def script(conn: ssl.SSLSocket) -> None:
        names.append(conn.getpeercert())
        echo(conn)

    with (
        secure(context, script) as port,
        connect(port, TlsOptions(ca=keys.ca, certificate=keys.client)) as connection,
    ):
        connection.exchange(b"x")
    assert "alice" in str(names[0]["subject"])
    with (
        secure(context, script) as port,
        connect(port, keys.options) as connection,
        pytest.raises(StreamBroken, match="it asks for a certificate of ours"),
    ):
        connection.receive()


def test_what_was_agreed_can_be_told(keys: Keys) -> None:
    context = keys.context()
    context.set_alpn_protocols(["echo/1"])
    with (
        secure(context) as port,
        connect(port, TlsOptions(ca=keys.ca, alpn=("h2", "echo/1")), "localhost") as connection,
    ):
        assert isinstance(connection.socket, TlsSocket)
        lines = list(terms(connection.socket))
        assert lines[0].startswith("TLS 1.3, TLS_")
        assert lines[0].endswith(", SNI localhost, ALPN echo/1")
        assert lines[-1] == f"fingerprint (SHA-256): {fingerprint(connection.socket)}"
        assert "issued by" in lines[1]
        connection.exchange(b"")


# What is no TLS ----------------------------------------------------------------------------------


def test_a_server_that_speaks_something_else() -> None:
    def script(conn: Any) -> None:
        conn.sendall(b"220 mail.example.org \x1b[2J\r\n")
        conn.recv(4096)
        conn.recv(4096)

    with serving(script) as port:
        words = refused(port, TlsOptions())
    assert 'what it says is not TLS: "220 mail.example.org' in words
    assert "\x1b" not in words
    assert "tcp:// talks without" in words


def test_a_server_that_hangs_up() -> None:
    with serving(lambda conn: conn.recv(4096)) as port:
        assert "does it speak TLS?" in refused(port, TlsOptions())


def test_a_server_that_says_nothing() -> None:
    done = threading.Event()
    with serving(lambda _conn: done.wait(PATIENCE)) as port:
        try:
            with pytest.raises(TimeLimit, match="says nothing: does it speak TLS") as caught:
                blocking.connect(f"tls://127.0.0.1:{port}", timeout=0.3)
        finally:
            done.set()
    assert caught.value.exit_status == 124


def test_files_that_are_not_there_or_not_right(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="ENOENT"):
        TlsOptions(ca=tmp_path / "nothing").context()
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(CallerError, match="no certificate in"):
        TlsOptions(ca=junk).context()
    with pytest.raises(CallerError, match="not a certificate and its key"):
        TlsOptions(certificate=keys.ca).context()
    with pytest.raises(CallerError, match="64 hexadecimal digits"):
        TlsOptions(fingerprint="abc")
    with pytest.raises(CallerError, match="does not speak TLS"):
        blocking.connect("tcp://127.0.0.1:1", tls=TlsOptions())


# The header of a proxy ---------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "version"), [("", 2), ("?header=1", 1), ("?header=2", 2)])
def test_a_header_goes_before_everything(query: str, version: int) -> None:
    came: list[bytes] = []

    def script(conn: Any) -> None:
        while data := conn.recv(4096):
            came.append(data)

    with (
        serving(script) as port,
        blocking.connect(f"proxyprotocol+tcp://127.0.0.1:{port}{query}", timeout=PATIENCE) as connection,
    ):
        ours = connection.local, connection.peer
        connection.exchange(b"hello")
    found = read_header(b"".join(came))
    assert found is not None
    header, size = found
    assert (header.version, header.source, header.destination) == (version, *ours)
    assert b"".join(came)[size:] == b"hello"


def _self_signed() -> tuple[ssl.SSLContext, str]:
    from bothends.layers import self_signed

    return self_signed(["localhost", "127.0.0.1"])
