"""TLS at the client's end: what is believed of a server, and a socket that speaks it.

1. A certificate is checked, unless the caller says not to: its issuer, its time, and the name or address
   that was connected to (RFC 9525). Or it is known by its fingerprint, and then by nothing else.
2. `TlsSocket` is a non-blocking socket like any other, for whoever drives it by poll(): it takes what can be
   encrypted and sent at once, and gives what has come.
3. What poll() can't see is kept small. All that has been read is decrypted, so nothing readable waits
   unseen. A piece counts as sent only when its last byte of ciphertext is: who calls again, as OpenSSL
   too asks of its callers, is told of it then. What remains is the end (close_notify) when the kernel has
   no room for it: `has_unsent` says that POLLOUT is wanted.
4. Server and client share no code that speaks TLS: a mistake would cancel itself out in tests.
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

# The most that is encrypted by one send: a record (RFC 8446, section 5.1). It is sent whole, so a larger
# piece would only wait longer before its first part counts.
_MAX_RECORD: Final = 16 * 1024
_READ_SIZE: Final = 64 * 1024

# X509_V_ERR_* of OpenSSL's x509_vfy.h, in our words, and what to try.
_UNKNOWN_ISSUER: Final = (
    "nobody whom this machine trusts has issued its certificate",
    "--tls-ca FILE names the issuer to trust, --tls-fingerprint SHA256 the certificate itself",
)
_SELF_SIGNED: Final = (
    "its certificate is self-signed",
    "if it is your own, --tls-fingerprint SHA256 accepts exactly that one (a server shows it when it starts)",
)
_VERIFY_ERRORS: Final = {
    9: ("its certificate is not valid yet", "is the clock right, here and there?"),
    10: ("its certificate has expired", "is the clock right, here and there?"),
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    2: _UNKNOWN_ISSUER,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    62: ("its certificate is for another host", "--tls-name NAME expects the name that stands in it"),
    64: ("its certificate is for another address", "--tls-name NAME expects the name that stands in it"),
}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a client speaks TLS, and what it believes.

    `ca`: a PEM file of issuers to believe instead of the system's. `fingerprint`: SHA-256 in hexadecimal of
    the one certificate to accept, colons or not. `check=False` believes anybody. `certificate` and `key`
    (PEM): who we are, if the server asks. `name`: the host to expect and to ask for (SNI), in place of the
    endpoint's. `alpn`: protocols, the preferred one first.
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
        """A client's context: TLS 1.2 or newer.

        Raises SystemRefused where a file can't be read, CallerError where it isn't what it should be.
        """
        for path in (self.ca, self.certificate, self.key):
            try:
                if path is not None:
                    Path(path).read_bytes()  # OpenSSL would say only that something went wrong
            except OSError as error:
                raise SystemCallFailed("read", str(path), error.errno or 0) from error
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise UsageError(f"TLS: there is no certificate in {self.ca}; it should be PEM") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.fingerprint or not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except ssl.SSLError as error:
                words = "not a certificate and its key, in PEM"
                raise UsageError(
                    f"TLS: {self.certificate} and {self.key or 'no key file'}: {words}"
                ) from error
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


class TlsSocket(socket.socket):
    """A connected socket that speaks TLS. Non-blocking; use it as such a socket, and mind `has_unsent`.

    Raises, besides OSError: StreamBroken where what comes is no TLS any more, or was cut off.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, name: str, label: str) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.server_name = name
        self.eof_received = False
        """The peer's close_notify has come."""
        self._label = label
        self._lock = threading.RLock()  # one thread may send while another receives
        self._pending_ciphertext = b""
        self._pending_plaintext = b""  # what the caller has not been told yet that it is sent
        self._close_notify_sent = False
        self._first_bytes = b""

    @property
    def has_unsent(self) -> bool:
        """Something of ours waits for room: call `recv` (or `flush`) when the socket is writable."""
        return bool(self._pending_ciphertext)

    @property
    def supports_half_close(self) -> bool:
        """Whether we can end our direction alone: from TLS 1.3 on (RFC 8446, section 6.1)."""
        return self.tls.version() != "TLSv1.2"

    # As any socket -------------------------------------------------------------------------------

    def recv(self, size: int, flags: int = 0) -> bytes:
        """All that has come, which can be more than `size` by a record; b"" at the peer's end."""
        with self._lock:
            self.flush()
            while not self.eof_received:
                found = self._decrypt()
                if found or self.eof_received:
                    return found
                data = super().recv(max(size, 1), flags)
                if not data:
                    raise ProtocolViolation(self._label, "cut off: the connection ended without close_notify")
                self._incoming.write(data)
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        """How much of it is encrypted and has left. Raises BlockingIOError while it hasn't: call again."""
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
        """Send all of it, waiting where that must be."""
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[self.send(view, flags) :]
            except BlockingIOError:
                _wait(self, write=True, deadline=None)

    def shutdown(self, how: int) -> None:
        """SHUT_WR says close_notify; SHUT_RD is not to be had, SHUT_RDWR ends the connection under it.

        Raises CannotCarry for SHUT_WR in TLS 1.2, whose close_notify ends both directions.
        """
        if how == socket.SHUT_WR:
            if not self.supports_half_close:
                reason = "its close_notify ends both directions (RFC 5246, section 7.2.1)"
                raise UnsupportedCombination("TLS 1.2", "an end of one direction", reason)
            with self._lock:
                self._send_close_notify()
                self.flush()
        else:
            super().shutdown(how)

    def close(self) -> None:
        """Say close_notify if there is room for it, and close. Idempotent."""
        if self.fileno() >= 0 and not self._close_notify_sent:
            with self._lock, contextlib.suppress(OSError):
                self._send_close_notify()
                self.flush()
        super().close()

    def flush(self) -> None:
        """Send what waits for room, as far as there is some; after close_notify, end our direction."""
        with self._lock, contextlib.suppress(BlockingIOError):
            self._flush_all(0)
            if self._close_notify_sent:
                with contextlib.suppress(OSError):
                    super().shutdown(socket.SHUT_WR)

    # TLS -------------------------------------------------------------------------------------------

    def handshake(self, deadline: float | None, timeout: float) -> None:
        """Shake hands, waiting until `deadline` (time.monotonic).

        Raises HandshakeFailed, TimeLimit; OSError where the connection is lost.
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
                        self._label, "shaking hands (TLS)", timeout, self._timeout_hint()
                    ) from None
        if not data:
            hint = "" if self._first_bytes else "does it speak TLS? tcp:// talks without"
            raise HandshakeFailed(self._label, "the peer closed the connection in the middle of it", hint)
        self._first_bytes = self._first_bytes or data[:24]
        self._incoming.write(data)

    def _send_handshake(self, deadline: float | None, timeout: float) -> None:
        while True:
            try:
                self._flush_all(0)
                return
            except BlockingIOError:
                if not _wait(self, write=True, deadline=deadline):
                    raise TimeoutExpired(self._label, "shaking hands (TLS)", timeout) from None

    def _timeout_hint(self) -> str:
        return "" if self._first_bytes else "it accepts connections, but says nothing: does it speak TLS?"

    def _handshake_error(self, error: ssl.SSLError) -> HandshakeFailed:
        if isinstance(error, ssl.SSLCertVerificationError):
            known = _VERIFY_ERRORS.get(error.verify_code)
            if known is None:
                return HandshakeFailed(self._label, describe_ssl_error(error))
            reason, hint = known
            detail = f", not for {self.server_name}" if error.verify_code in (62, 64) else ""
            return HandshakeFailed(self._label, reason + detail, hint)
        # An alert (21) is TLS too, whatever else is wrong (RFC 8446, section 6).
        if self._first_bytes and self._first_bytes[0] not in (HANDSHAKE_RECORD, 21):
            said = f'what it says is not TLS: "{escape(self._first_bytes)}"'
            return HandshakeFailed(self._label, said, "tcp:// talks without")
        return HandshakeFailed(self._label, describe_ssl_error(error))

    def _decrypt(self) -> bytes:
        found = bytearray()
        try:
            while piece := self.tls.read(_MAX_RECORD):
                found += piece
            self.eof_received = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.eof_received = True
        except ssl.SSLError as error:
            if not found:
                raise ProtocolViolation(self._label, describe_ssl_error(error)) from error
        return bytes(found)

    def _encrypt(self, view: memoryview) -> int:
        try:
            return self.tls.write(view)
        except ssl.SSLError as error:
            raise ProtocolViolation(self._label, describe_ssl_error(error)) from error

    def _send_close_notify(self) -> None:
        if not self._close_notify_sent:
            self._close_notify_sent = True
            with contextlib.suppress(ssl.SSLError):  # it goes on to wait for the peer's
                self.tls.unwrap()

    def _flush_all(self, flags: int) -> None:
        """Raises BlockingIOError if there is no room for all."""
        self._pending_ciphertext += self._outgoing.read()
        while self._pending_ciphertext:
            self._pending_ciphertext = self._pending_ciphertext[
                super().send(self._pending_ciphertext, flags) :
            ]


def start_tls(
    plain: socket.socket, endpoint: Endpoint, options: TlsOptions, timeout: float | None
) -> TlsSocket:
    """Speak TLS on a connected socket, which is closed if that comes to nothing. Waits `timeout` seconds.

    Raises HandshakeFailed, TimeLimit, CallerError, SystemRefused; OSError where the connection is lost.
    """
    try:
        context = options.context()
        name = options.name or endpoint.host.partition("%")[0] or "localhost"
        secured = TlsSocket(plain, context, name, endpoint.label)
    except BaseException:
        plain.close()
        raise
    try:
        deadline = None if timeout is None else time.monotonic() + timeout
        secured.handshake(deadline, timeout or 0.0)
        if options.fingerprint:
            shown = fingerprint(secured)
            if not hmac.compare_digest(shown, options.fingerprint):
                hint = "a self-signed certificate is a new one each time that its server starts"
                reason = f"its certificate is another one, with the fingerprint {shown}"
                raise HandshakeFailed(endpoint.label, reason, hint)
    except BaseException:
        secured.close()
        raise
    return secured


def fingerprint(sock: TlsSocket) -> str:
    """The SHA-256 of the certificate that the server showed, in hexadecimal."""
    return hashlib.sha256(sock.tls.getpeercert(binary_form=True) or b"").hexdigest()


def describe_session(sock: TlsSocket) -> Iterator[str]:
    """What was agreed, and the certificates, in lines for whoever wants to know."""
    tls = sock.tls
    cipher = tls.cipher()
    parts = [tls_version(tls), cipher[0] if cipher else "no cipher"]
    if not _is_address(sock.server_name):  # SNI is for names only (RFC 6066, section 3)
        parts.append(f"SNI {sock.server_name}")
    if protocol := tls.selected_alpn_protocol():
        parts.append(f"ALPN {protocol}")
    yield ", ".join(parts)
    # Of the chain the ssl module has told since 3.10, but made it public only in 3.13, as bare bytes.
    inner = getattr(tls, "_sslobj", None)
    chain = getattr(inner, "get_unverified_chain", lambda: None)() or []
    for number, certificate in enumerate(chain):
        found = certificate.get_info()
        known = f"{_certificate_name(found, 'subject')}, issued by {_certificate_name(found, 'issuer')}, until {found.get('notAfter')}"
        yield f"certificate {number}: {escape(known.encode())}"
    yield f"fingerprint (SHA-256): {fingerprint(sock)}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _certificate_name(certificate: Any, which: str) -> str:
    parts = {key: value for part in certificate.get(which, ()) for key, value in part}
    name = parts.get("commonName") or parts.get("organizationName")
    return str(name or (common_name(certificate) if which == "subject" else "") or "nobody")


def _wait(sock: socket.socket, *, write: bool, deadline: float | None) -> bool:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    poller = select.poll()
    poller.register(sock, select.POLLOUT if write else select.POLLIN)
    return bool(poller.poll(None if left is None else left * 1000))
