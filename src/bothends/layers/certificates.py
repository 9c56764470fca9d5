"""TLS contexts of servers, and self-signed certificates."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bothends.errors import SystemCallFailed, Unavailable, UsageError

# Validity of a self-signed certificate: longer than any test run, too short for production use.
_VALIDITY_DAYS: Final = 30

# Clocks differ: a certificate valid from this moment is not yet valid for a client a minute behind.
_CLOCK_SKEW: Final = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The TLS settings of a server.

    Either `certificate` (a PEM file with the chain after it; `key` may be in the same file), or
    `self_signed`: a certificate created at start and never stored.

    `client_ca`: PEM file of issuers; clients must then present a certificate issued by one of them.
    `alpn`: protocols, the preferred one first.
    """

    certificate: str | Path | None = None
    key: str | Path | None = None
    client_ca: str | Path | None = None
    alpn: tuple[str, ...] = ()
    self_signed: bool = False

    def context(self, names: Sequence[str] = ()) -> tuple[ssl.SSLContext, str]:
        """Return a server context and the SHA-256 fingerprint of its certificate in hexadecimal.

        A self-signed certificate is for `names`, and for the names of this machine.

        Raises:
            UsageError: a file is invalid, or the settings contradict each other.
            SystemCallFailed: a file cannot be read.
            Unavailable: the library for self-signed certificates is not installed.
        """
        if self.self_signed:
            if self.certificate is not None or self.key is not None:
                raise UsageError("TLS: give a certificate or use a self-signed one, not both")
            all_names = dict.fromkeys([*filter(None, names), *_local_names()])
            context, fingerprint = self_signed(list(all_names))
            _configure_context(context, self.client_ca, self.alpn)
            return context, fingerprint
        if self.certificate is None:
            raise UsageError("TLS needs a certificate: give one, or use a self-signed one")
        context = server_context(self.certificate, self.key, client_ca=self.client_ca, alpn=self.alpn)
        return context, certificate_fingerprint(Path(self.certificate).read_text("latin-1"))


def server_context(
    certificate: str | Path,
    key: str | Path | None = None,
    *,
    client_ca: str | Path | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """Return a server context: no version below TLS 1.2 (RFC 8996), no renegotiation, no compression.

    `certificate` and `key` are PEM files; `key` defaults to the certificate's file. With `client_ca` (PEM)
    clients must present a certificate issued by it.

    Raises:
        SystemCallFailed: a file cannot be read.
        UsageError: a file is invalid.
    """
    context = _new_context()
    files = (certificate, certificate if key is None else key)
    for each in files:
        _check_readable(each)
    try:
        # Without a callback OpenSSL prompts for the password on the terminal, which would block a server.
        context.load_cert_chain(*files, password=_no_password)
    except ssl.SSLError as error:
        reason = {
            "KEY_VALUES_MISMATCH": f"the key in {files[1]} does not belong to the certificate",
            "NO_START_LINE": "the file has no PEM certificate or no PEM key",
            "PEM_LIB": f"{files[0]} or {files[1]} is not valid PEM",
        }.get(error.reason or "PEM_LIB", (error.reason or "").replace("_", " ").lower())
        raise UsageError(f"TLS certificate {certificate}: {reason}") from error
    _configure_context(context, client_ca, alpn)
    return context


def self_signed(names: Sequence[str]) -> tuple[ssl.SSLContext, str]:
    """Return a server context with a new self-signed certificate, and its SHA-256 fingerprint in hexadecimal.

    The certificate is for `names` (host names and addresses). The key is new each time. It is in a file of
    mode 600 only while OpenSSL reads it.

    Raises Unavailable if the `cryptography` library is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError as error:
        raise Unavailable(
            "create",
            "a self-signed certificate",
            reason="the cryptography library is not installed",
            hint="pip install cryptography, or give a certificate",
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    # 64 characters: the limit of a common name (RFC 5280, appendix A.1, ub-common-name).
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=_VALIDITY_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = _new_context()
    with tempfile.NamedTemporaryFile(prefix="bothends-", suffix=".pem") as file:  # mode 600
        file.write(secret + pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context, certificate_fingerprint(pem.decode("ascii"))


def certificate_fingerprint(pem: str) -> str:
    """Return the SHA-256 of the first certificate in a PEM text, in hexadecimal. Raises UsageError."""
    end = "-----END CERTIFICATE-----"
    start = pem.find("-----BEGIN CERTIFICATE-----")
    stop = pem.find(end, start)
    if start < 0 or stop < 0:
        raise UsageError("TLS: the file contains no PEM certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[start : stop + len(end)])).hexdigest()


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _configure_context(context: ssl.SSLContext, client_ca: str | Path | None, alpn: Sequence[str]) -> None:
    if client_ca is not None:
        _check_readable(client_ca)
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise UsageError(f"TLS: {client_ca} contains no PEM certificate") from error
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        for name in alpn:
            if not 0 < len(name.encode()) < 256:
                raise UsageError(f"ALPN: a protocol name has 1 to 255 bytes, not {name!r}")
        context.set_alpn_protocols(list(alpn))


def _check_readable(path: str | Path) -> None:
    # OpenSSL reports the same error for a missing file and for an unreadable one.
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise SystemCallFailed("read", os.fspath(path), error.errno or 0) from error


def _no_password() -> str:
    raise UsageError("TLS: the key is encrypted; decrypt it first: openssl pkey -in KEY -out PLAIN")


def _local_names() -> list[str]:
    return ["localhost", "127.0.0.1", "::1", socket.gethostname()]


def _general_name(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))
