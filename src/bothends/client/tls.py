"""TLS on the client side: verification of the server, and a socket that encrypts.

1. The certificate is verified unless the caller disables it: its issuer, its validity period, and the name or
   address that the client connected to (RFC 9525). With a fingerprint, only the fingerprint is compared.
2. `TlsSocket` is a non-blocking socket for drivers that use poll(): send() accepts data that can be encrypted
   and sent at once, recv() returns the data received so far.
3. Hidden state is minimal, because poll() does not see it. All received records are decrypted at once, so no
   readable data is hidden. Data counts as sent only with its last byte of ciphertext: the caller repeats the
   call, as OpenSSL requires too, and then gets the count. The exception is a close_notify for which the
   kernel has no room: with `has_unsent` set the driver waits for POLLOUT.
4. Server and client share no TLS code, because an error in both would cancel itself out in tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bothends.endpoints import Endpoint
from bothends.errors import (
    HandshakeFailed,
    ProtocolViolation,
    SystemCallFailed,
    TimeoutExpired,
    UnsupportedCombination,
    UsageError,
)
from bothends.escaping import escape
from bothends.layers.tls_errors import HANDSHAKE_RECORD, common_name, describe_ssl_error, tls_version

__all__ = ["TlsOptions", "TlsSocket", "describe_session", "fingerprint", "start_tls"]

# Bytes encrypted by one send: a record (RFC 8446, section 5.1). Its ciphertext is sent whole, so a larger
# chunk would only wait longer before its first byte counts as sent.
_MAX_RECORD: Final = 16 * 1024
_READ_SIZE: Final = 64 * 1024
_CLIENT_HELLO: Final = b"\x01"  # type of the first handshake message, after a record's header (RFC 8446, 4)

# X509_V_ERR_* of OpenSSL's x509_vfy.h: reason and hint.
_UNKNOWN_ISSUER: Final = (
    "the issuer of the server's certificate is not trusted",
    "trust the issuer with --tls-ca FILE, or the certificate with --tls-fingerprint SHA256",
)
_SELF_SIGNED: Final = (
    "the server's certificate is self-signed",
    "if you trust it, accept exactly this one with --tls-fingerprint SHA256 (the server prints it at start)",
)
_VERIFY_ERRORS: Final = {
    9: ("the server's certificate is not valid yet", "check the clocks of both machines"),
    10: ("the server's certificate has expired", "check the clocks of both machines"),
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    2: _UNKNOWN_ISSUER,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    62: ("the server's certificate is for another host", "--tls-name NAME expects another name"),
    64: ("the server's certificate is for another address", "--tls-name NAME expects another name"),
}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The TLS settings of a client.

    `ca`: a PEM file of trusted issuers, instead of the system's. `fingerprint`: SHA-256 in hexadecimal of the
    only certificate to accept, with or without colons. `verify=False` disables verification. `certificate`
    and `key` (PEM): the client certificate. `name`: the host name to expect and to request (SNI), instead of
    the endpoint's host. `alpn`: protocols, the preferred one first.
    """

    ca: str | Path | None = None
    fingerprint: str = ""
    verify: bool = True
    certificate: str | Path | None = None
    key: str | Path | None = None
    name: str = ""
    alpn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plain = self.fingerprint.replace(":", "").lower()
        if self.fingerprint and not re.fullmatch(r"[0-9a-f]{64}", plain):
            raise UsageError(f"a SHA-256 fingerprint has 64 hexadecimal digits, not {self.fingerprint!r}")
        object.__setattr__(self, "fingerprint", plain)

    def context(self) -> ssl.SSLContext:
        """Return a client context for TLS 1.2 or newer.

        Raises SystemCallFailed if a file cannot be read, UsageError if it is invalid.
        """
        for path in (self.ca, self.certificate, self.key):
            try:
                if path is not None:
                    Path(path).read_bytes()  # because the error of OpenSSL has no errno
            except OSError as error:
                raise SystemCallFailed("read", str(path), error.errno or 0) from error
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise UsageError(f"TLS: {self.ca} contains no PEM certificate") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.fingerprint or not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except ssl.SSLError as error:
                files = f"{self.certificate} and {self.key or 'no key file'}"
                raise UsageError(f"TLS: {files}: not a PEM certificate with its key") from error
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


class TlsSocket(socket.socket):
    """A connected, non-blocking socket with TLS. Use it as a plain one, but check `has_unsent`.

    Its methods raise OSError, and ProtocolViolation if the stream is not valid TLS or is truncated.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, name: str, label: str) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.server_name = name
        self.eof_received = False
        """Whether the peer's close_notify has arrived."""
        self._label = label
        self._lock = threading.RLock()  # one thread may send while another receives
        self._pending_ciphertext = b""
        self._pending_plaintext = b""  # encrypted, but not yet reported as sent to the caller
        self._close_notify_sent = False
        self._first_bytes = b""

    @property
    def has_unsent(self) -> bool:
        """Whether ciphertext is unsent: call `recv` (or `flush`) when the socket is writable."""
        return bool(self._pending_ciphertext)

    @property
    def supports_half_close(self) -> bool:
        """Whether one direction can be closed alone: from TLS 1.3 on (RFC 8446, section 6.1)."""
        return self.tls.version() != "TLSv1.2"

    # Socket interface ------------------------------------------------------------------------------

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive all available data, up to a record more than `size`; b"" at the peer's close_notify."""
        with self._lock:
            self.flush()
            while not self.eof_received:
                plaintext = self._decrypt()
                if plaintext or self.eof_received:
                    return plaintext
                data = super().recv(max(size, 1), flags)
                if not data:
                    raise ProtocolViolation(self._label, "truncated: EOF without close_notify")
                self._incoming.write(data)
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        """Encrypt and send. Returns the bytes sent. Raises BlockingIOError until then: repeat the call."""
        view = memoryview(data)[:_MAX_RECORD]
        with self._lock:
            if not (
                self._pending_plaintext and view[: len(self._pending_plaintext)] == self._pending_plaintext
            ):
                self._pending_plaintext = b""
                self._flush_all(flags)
                if not view:
                    return 0
                self._pending_plaintext = bytes(view[: self._encrypt(view)])
            self._flush_all(flags)
            size, self._pending_plaintext = len(self._pending_plaintext), b""
            return size

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all data, blocking if necessary."""
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[self.send(view, flags) :]
            except BlockingIOError:
                _wait(self, write=True, deadline=None)

    def shutdown(self, how: int) -> None:
        """SHUT_WR sends close_notify. SHUT_RD and SHUT_RDWR apply to the underlying connection.

        Raises UnsupportedCombination for SHUT_WR in TLS 1.2, whose close_notify closes both directions.
        """
        if how == socket.SHUT_WR:
            if not self.supports_half_close:
                reason = "its close_notify closes both directions (RFC 5246, section 7.2.1)"
                raise UnsupportedCombination("TLS 1.2", "a half-close", reason)
            with self._lock:
                self._send_close_notify()
                self.flush()
        else:
            super().shutdown(how)

    def close(self) -> None:
        """Send close_notify if the kernel has room for it, and close. Idempotent."""
        if self.fileno() >= 0 and not self._close_notify_sent:
            with self._lock, contextlib.suppress(OSError):
                self._send_close_notify()
                self.flush()
        super().close()

    def flush(self) -> None:
        """Send pending ciphertext as far as possible; after close_notify, shut down the sending side."""
        with self._lock, contextlib.suppress(BlockingIOError):
            self._flush_all(0)
            if self._close_notify_sent:
                with contextlib.suppress(OSError):
                    super().shutdown(socket.SHUT_WR)

    # TLS -------------------------------------------------------------------------------------------

    def handshake(self, deadline: float | None, timeout: float) -> None:
        """Do the handshake, waiting until `deadline` (time.monotonic). `timeout` is for the error message.

        Raises HandshakeFailed, TimeoutExpired; OSError if the connection is lost.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert
                raise self._handshake_error(error) from error
            else:
                self._send_handshake(deadline, timeout)
                return
            self._send_handshake(deadline, timeout)
            self._receive_handshake(deadline, timeout)

    def _receive_handshake(self, deadline: float | None, timeout: float) -> None:
        while True:
            try:
                data = super().recv(_READ_SIZE)
                break
            except BlockingIOError:
                if not _wait(self, write=False, deadline=deadline):
                    raise TimeoutExpired(
                        self._label, "doing the TLS handshake", timeout, self._timeout_hint()
                    ) from None
        if not data:
            hint = "" if self._first_bytes else "the server may not use TLS; try tcp://"
            raise HandshakeFailed(self._label, "the peer closed the connection during the handshake", hint)
        self._first_bytes = self._first_bytes or data[:24]
        self._incoming.write(data)

    def _send_handshake(self, deadline: float | None, timeout: float) -> None:
        while True:
            try:
                self._flush_all(0)
                return
            except BlockingIOError:
                if not _wait(self, write=True, deadline=deadline):
                    raise TimeoutExpired(self._label, "doing the TLS handshake", timeout) from None

    def _timeout_hint(self) -> str:
        return "" if self._first_bytes else "the server sends nothing; it may not use TLS"

    def _handshake_error(self, error: ssl.SSLError) -> HandshakeFailed:
        if isinstance(error, ssl.SSLCertVerificationError):
            explained = _VERIFY_ERRORS.get(error.verify_code)
            if explained is None:
                return HandshakeFailed(self._label, describe_ssl_error(error))
            reason, hint = explained
            detail = f", not for {self.server_name}" if error.verify_code in (62, 64) else ""
            return HandshakeFailed(self._label, reason + detail, hint)
        # An alert (21) is TLS too, whatever its reason (RFC 8446, section 6).
        if self._first_bytes and self._first_bytes[0] not in (HANDSHAKE_RECORD, 21):
            reason = f'the server answered in plain text, not TLS: "{escape(self._first_bytes)}"'
            return HandshakeFailed(self._label, reason, "try tcp://")
        if self._first_bytes[5:6] == _CLIENT_HELLO:
            reason = "the server answered in plain text, not TLS: it sent the ClientHello back"
            return HandshakeFailed(self._label, reason, "try tcp://")
        return HandshakeFailed(self._label, describe_ssl_error(error))

    def _decrypt(self) -> bytes:
        plaintext = bytearray()
        try:
            while record := self.tls.read(_MAX_RECORD):
                plaintext += record
            self.eof_received = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.eof_received = True
        except ssl.SSLError as error:
            if not plaintext:
                raise ProtocolViolation(self._label, describe_ssl_error(error)) from error
        return bytes(plaintext)

    def _encrypt(self, view: memoryview) -> int:
        try:
            return self.tls.write(view)
        except ssl.SSLError as error:
            raise ProtocolViolation(self._label, describe_ssl_error(error)) from error

    def _send_close_notify(self) -> None:
        if not self._close_notify_sent:
            self._close_notify_sent = True
            with contextlib.suppress(ssl.SSLError):  # unwrap() also waits for the peer's
                self.tls.unwrap()

    def _flush_all(self, flags: int) -> None:
        """Send all pending ciphertext. Raises BlockingIOError if the kernel has no room for it."""
        self._pending_ciphertext += self._outgoing.read()
        while self._pending_ciphertext:
            self._pending_ciphertext = self._pending_ciphertext[
                super().send(self._pending_ciphertext, flags) :
            ]


def server_name(options: TlsOptions, endpoint: Endpoint) -> str:
    """Return the host name or address to expect of an endpoint's server."""
    return options.name or endpoint.host.partition("%")[0] or "localhost"


def start_tls(
    plain: socket.socket, endpoint: Endpoint, options: TlsOptions, timeout: float | None
) -> TlsSocket:
    """Start TLS on a connected socket, waiting at most `timeout` seconds. On error the socket is closed.

    Raises HandshakeFailed, TimeoutExpired, UsageError, SystemCallFailed; OSError if the connection is lost.
    """
    try:
        context = options.context()
        tls_socket = TlsSocket(plain, context, server_name(options, endpoint), endpoint.label)
    except BaseException:
        plain.close()
        raise
    try:
        deadline = None if timeout is None else time.monotonic() + timeout
        tls_socket.handshake(deadline, timeout or 0.0)
        if options.fingerprint:
            actual = fingerprint(tls_socket)
            if not hmac.compare_digest(actual, options.fingerprint):
                hint = "a self-signed certificate is new each time the server starts"
                reason = f"the server's certificate has another fingerprint, {actual}"
                raise HandshakeFailed(endpoint.label, reason, hint)
    except BaseException:
        tls_socket.close()
        raise
    return tls_socket


def fingerprint(sock: TlsSocket) -> str:
    """Return the SHA-256 of the server's certificate, in hexadecimal."""
    return hashlib.sha256(sock.tls.getpeercert(binary_form=True) or b"").hexdigest()


def describe_session(sock: TlsSocket) -> Iterator[str]:
    """Yield lines that describe the negotiated parameters and the certificates."""
    tls = sock.tls
    cipher = tls.cipher()
    parts = [tls_version(tls), cipher[0] if cipher else "no cipher"]
    if not is_address(sock.server_name):  # SNI is for names only (RFC 6066, section 3)
        parts.append(f"SNI {sock.server_name}")
    if protocol := tls.selected_alpn_protocol():
        parts.append(f"ALPN {protocol}")
    yield ", ".join(parts)
    # The ssl module has the chain since Python 3.10, but public only since 3.13, as bytes.
    inner = getattr(tls, "_sslobj", None)
    chain = getattr(inner, "get_unverified_chain", lambda: None)() or []
    for number, certificate in enumerate(chain):
        info = certificate.get_info()
        subject, issuer = _certificate_name(info, "subject"), _certificate_name(info, "issuer")
        text = f"{subject}, issued by {issuer}, until {info.get('notAfter')}"
        yield f"certificate {number}: {escape(text.encode())}"
    yield f"fingerprint (SHA-256): {fingerprint(sock)}"


def is_address(name: str) -> bool:
    """Return whether a server's name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _certificate_name(certificate: Any, which: str) -> str:
    parts = {key: value for part in certificate.get(which, ()) for key, value in part}
    name = parts.get("commonName") or parts.get("organizationName")
    return str(name or (common_name(certificate) if which == "subject" else "") or "unnamed")


def _wait(sock: socket.socket, *, write: bool, deadline: float | None) -> bool:
    remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
    poller = select.poll()
    poller.register(sock, select.POLLOUT if write else select.POLLIN)
    return bool(poller.poll(None if remaining is None else remaining * 1000))
