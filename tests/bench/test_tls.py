"""TLS of both generators: what is verified and negotiated, how connections end, and each fault."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bothends.bench.generators import native, native_tls, python
from bothends.bench.generators.base import RunPlan
from bothends.bench.load import measure, select_generator
from bothends.bench.results import Faults, Round
from bothends.bench.schedule import Schedule
from bothends.bench.workload import numbered
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint
from bothends.errors import UnsupportedCombination
from bothends.layers.certificates import certificate_fingerprint
from tests.bench.faulty_servers import reset, stream_server
from tests.bench.min_samples import measure_until_enough

MISSING = native.unavailable_reason() or native_tls.unavailable_reason()
GENERATORS = ["python", pytest.param("native", marks=pytest.mark.skipif(bool(MISSING), reason=MISSING))]

Handler = Callable[[ssl.SSLSocket], None]


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class Keys:
    """A test CA, a certificate of it for this machine, and one of a client."""

    def __init__(self, folder: Path) -> None:
        self.issuer = trustme.CA()
        self.ca, self.client = folder / "ca.pem", folder / "client.pem"
        self.issuer.cert_pem.write_to_path(self.ca)
        certificate = self.issuer.issue_cert("alice@example.org", common_name="alice")
        certificate.private_key_and_cert_chain_pem.write_to_path(self.client)
        self.valid = self.issuer.issue_cert("localhost", "127.0.0.1")

    def context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (certificate or self.valid).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@contextlib.contextmanager
def tls_server(*contexts: ssl.SSLContext, handler: Handler) -> Iterator[Endpoint]:
    """Serve TLS: the first connection, a generator's first look, by the first context, others by the last."""
    remaining, lock = list(contexts), threading.Lock()

    def handle(plain: socket.socket) -> None:
        plain.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # session tickets go before the first answer
        with lock:
            context = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as connection,
        ):
            handler(connection)

    with stream_server(handle) as endpoint:
        yield Endpoint("tls", host="127.0.0.1", port=endpoint.port)


def echo(connection: ssl.SSLSocket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def run(
    generator: str,
    endpoint: Endpoint,
    tls: TlsOptions,
    *,
    duration: float | None = None,
    size: int = 40,
    responses: int = 10,
    **options: Any,
) -> Round:
    if duration is None:
        return measure_until_enough(
            lambda seconds: run(generator, endpoint, tls, duration=seconds, size=size, **options), responses
        )
    workload = numbered(size, "echo", newline=True, depth=options.get("depth", 1))
    plan = RunPlan(endpoint, workload, duration=duration, tls=tls, **{"timeout": 10.0, **options})
    return measure(plan, generator=select_generator(generator, plan))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    "options",
    [{"connections": 3}, {"depth": 5, "connections": 3}, {"reconnect": True}, {"schedule": Schedule(300)}],
    ids=["closed", "deep", "reconnect", "open"],
)
def test_answers_of_a_verified_server_are_compared(
    keys: Keys, generator: str, version: ssl.TLSVersion, options: dict[str, Any]
) -> None:
    context = keys.context()
    context.maximum_version = version
    with tls_server(context, handler=echo) as endpoint:
        found = run(generator, endpoint, TlsOptions(ca=keys.ca), **options)
    assert (found.faults, found.ended) == (Faults(), "")
    assert found.completed >= 10
    assert found.own.name == ("Python, epoll" if generator == "python" else "C, epoll")


def test_messages_of_many_records(keys: Keys, generator: str) -> None:
    with tls_server(keys.context(), handler=echo) as endpoint:
        found = run(
            generator, endpoint, TlsOptions(ca=keys.ca), size=700_001, responses=4, depth=2, connections=2
        )
    assert found.faults == Faults()
    assert found.bytes_received == 700_001 * found.completed > 0


@pytest.mark.parametrize("reconnect", [False, True])
def test_connections_end_with_close_notify(keys: Keys, generator: str, reconnect: bool) -> None:
    ends: list[bytes] = []

    def handle(connection: ssl.SSLSocket) -> None:
        while data := connection.recv(65536):  # raises at EOF without close_notify
            connection.sendall(data)
        ends.append(data)

    with tls_server(keys.context(), handler=handle) as endpoint:
        found = run(generator, endpoint, TlsOptions(ca=keys.ca), duration=0.05, reconnect=reconnect)
    assert found.faults == Faults()
    assert len(ends) == 1 + found.connections_made  # one more: the first look


def test_name_protocol_and_client_certificate_are_negotiated(keys: Keys, generator: str) -> None:
    context, seen = keys.context(keys.issuer.issue_cert("other.example")), []
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys.ca)
    context.set_alpn_protocols(["two", "one"])
    names: list[str] = []
    context.sni_callback = lambda _tls, name, _context: names.append(name)

    def handle(connection: ssl.SSLSocket) -> None:
        certificate = connection.getpeercert() or {}
        seen.append((connection.selected_alpn_protocol(), certificate["subject"][-1][0][1]))
        echo(connection)

    options = TlsOptions(ca=keys.ca, name="other.example", alpn=("one", "two"), certificate=keys.client)
    with tls_server(context, handler=handle) as endpoint:
        found = run(generator, endpoint, options, duration=0.05, connections=2)
    assert found.faults == Faults()
    assert seen == [("two", "alice")] * 3
    assert names == ["other.example"] * 3


def test_later_certificates_are_verified_like_the_first(
    keys: Keys, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "UNRESPONSIVE_AFTER", 0.05)
    monkeypatch.setattr(python, "UNRESPONSIVE_AFTER", 0.05)
    first = keys.context()
    for later in (
        keys.context(trustme.CA().issue_cert("127.0.0.1")),
        keys.context(keys.issuer.issue_cert("example.org")),
    ):
        with tls_server(first, later, handler=echo) as endpoint:
            found = run(generator, endpoint, TlsOptions(ca=keys.ca), duration=20, connections=2)
        assert found.faults.total == found.faults.refused > 0
        assert found.completed == 0
        assert "CERTIFICATE_VERIFY_FAILED" in found.ended
        with tls_server(first, later, handler=echo) as endpoint:
            assert run(generator, endpoint, TlsOptions(verify=False)).faults == Faults()


def test_later_certificates_must_have_the_fingerprint(keys: Keys, generator: str) -> None:
    accepted = TlsOptions(fingerprint=certificate_fingerprint(keys.valid.cert_chain_pems[0].bytes().decode()))
    with tls_server(keys.context(), handler=echo) as endpoint:
        assert run(generator, endpoint, accepted).faults == Faults()
    other = keys.context(keys.issuer.issue_cert("127.0.0.1"))
    with tls_server(keys.context(), other, handler=echo) as endpoint:
        found = run(generator, endpoint, accepted, responses=1)
    assert found.faults.total == found.faults.refused > 0


@pytest.mark.parametrize("later", ["plain", "close", "reset"])
def test_servers_that_break_off_the_handshake_refuse(keys: Keys, generator: str, later: str) -> None:
    accepted: list[socket.socket] = []

    def handle(plain: socket.socket) -> None:
        accepted.append(plain)
        if len(accepted) == 1:
            with keys.context().wrap_socket(plain, server_side=True) as connection:
                echo(connection)
            return
        plain.recv(65536)
        if later == "plain":
            plain.sendall(b"220 ready, who is there?\r\n")
        elif later == "reset":
            reset(plain)

    with stream_server(handle) as server:
        endpoint = Endpoint("tls", host="127.0.0.1", port=server.port)
        found = run(generator, endpoint, TlsOptions(ca=keys.ca), responses=1)
    assert found.faults.total == found.faults.refused > 0


def test_a_handshake_without_an_answer_is_silent(keys: Keys, generator: str) -> None:
    accepted: list[socket.socket] = []

    def handle(plain: socket.socket) -> None:
        accepted.append(plain)
        if len(accepted) == 1:
            with keys.context().wrap_socket(plain, server_side=True) as connection:
                echo(connection)
        while plain.fileno() >= 0 and plain.recv(65536):
            pass

    with stream_server(handle) as server:
        endpoint = Endpoint("tls", host="127.0.0.1", port=server.port)
        found = run(generator, endpoint, TlsOptions(ca=keys.ca), duration=0.3, timeout=0.1, reconnect=True)
    assert found.faults.total == found.faults.silent > 0


def test_a_session_that_ends_early_loses_the_answer(keys: Keys, generator: str) -> None:
    def close(connection: ssl.SSLSocket) -> None:
        connection.recv(1000)
        connection.unwrap()

    def reset_it(connection: ssl.SSLSocket) -> None:
        connection.recv(1000)
        reset(connection)

    for handler in (close, reset_it):
        with tls_server(keys.context(), handler=handler) as endpoint:
            found = run(generator, endpoint, TlsOptions(ca=keys.ca), responses=1, depth=2)
        assert found.faults.total == found.faults.lost + found.faults.reset > 0
        assert found.faults.lost > 0
        assert found.completed == 0


def test_records_that_cannot_be_decrypted_reset(keys: Keys, generator: str) -> None:
    def handle(connection: ssl.SSLSocket) -> None:
        connection.recv(1000)
        plain = socket.socket(fileno=connection.detach())
        with plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            while plain.recv(1000):
                pass

    with tls_server(keys.context(), handler=handle) as endpoint:
        found = run(generator, endpoint, TlsOptions(ca=keys.ca), responses=1)
    assert found.faults.reset > 0
    assert found.completed == 0


def test_environment_that_needs_the_generator_in_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = RunPlan(Endpoint("tls", host="127.0.0.1", port=1), numbered(8, "echo", newline=True))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert "SSLKEYLOGFILE" in native_tls.unsupported_reason()
    assert select_generator("auto", plan).name == "Python, epoll"
    with pytest.raises(UnsupportedCombination, match="--generator python"):
        select_generator("native", plan)


@pytest.mark.skipif(bool(native.unavailable_reason()), reason=native.unavailable_reason())
def test_openssl_inside_python_is_left_alone() -> None:
    code = """
from bothends.bench.generators import native_tls
native_tls.library_name = lambda: "libssl.so.none"
print(native_tls.unavailable_reason())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "does not use it as a shared library" in found.stdout
