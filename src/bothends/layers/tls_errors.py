"""Explain TLS errors, and describe negotiated parameters.

OpenSSL reports reasons such as SSLV3_ALERT_CERTIFICATE_UNKNOWN. A name with ALERT is an alert sent by the
peer (RFC 8446, section 6); the name shows neither the side at fault nor the remedy.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from bothends.escaping import escape

# The first byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
HANDSHAKE_RECORD: Final = 0x16

_EXCERPT_SIZE: Final = 24  # bytes quoted from a stream that is not TLS

_NO_COMMON_VERSION: Final = "no common TLS version (the minimum here is 1.2)"
_NOT_TLS: Final = "the peer sent something that is not TLS"

_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": _NO_COMMON_VERSION,
    "VERSION_TOO_LOW": _NO_COMMON_VERSION,
    "NO_SHARED_CIPHER": "no common cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no common signature algorithm",
    "NO_SUITABLE_KEY_SHARE": "no common key exchange group",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer sent no certificate, and one is required",
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": "the peer sent HTTP without TLS",
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record was modified in transit",
    "BAD_RECORD_TYPE": _NOT_TLS,
    "UNEXPECTED_MESSAGE": "the peer sent an unexpected message (is it a plain-text server?)",
    "NO_RENEGOTIATION": "the peer requested renegotiation, which is disabled",
    # Alerts: errors that the peer reports.
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer supports neither TLS 1.2 nor 1.3 (alert protocol_version)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer found no common parameters (alert handshake_failure)",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not trust the local certificate's issuer (alert unknown_ca)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer rejected the local certificate (alert certificate_unknown)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer rejected the local certificate (alert bad_certificate)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the local certificate has expired (alert certificate_expired)",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the local certificate is revoked (alert certificate_revoked)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer requires a certificate (alert certificate_required)",
    "TLSV1_ALERT_ACCESS_DENIED": "the peer denied access (alert access_denied)",
    "TLSV1_ALERT_DECRYPT_ERROR": "the peer could not verify a signature (alert decrypt_error)",
    "TLSV1_ALERT_INTERNAL_ERROR": "internal error of the peer (alert internal_error)",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer supports none of the offered ALPN protocols",
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not serve that host name (alert unrecognized_name)",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": "the peer received an unexpected message (alert unexpected_message)",
    "TLSV1_ALERT_USER_CANCELLED": "the peer cancelled the handshake (alert user_canceled)",
}


def describe_non_tls(first: bytes) -> str:
    """Return the reason why a stream that begins with `first` cannot be TLS; "" if it can."""
    if not first or first[0] == HANDSHAKE_RECORD:
        return ""
    return f'not TLS: it began with "{escape(first[:_EXCERPT_SIZE])}"'


def describe_ssl_error(error: ssl.SSLError) -> str:
    """Return the reason for a TLS error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verification failed: {error.verify_message}"
    name = error.reason or ""
    return _REASONS.get(name) or (name.replace("_", " ").lower() if name else str(error))


def tls_version(tls: ssl.SSLObject | ssl.SSLSocket) -> str:
    """Return the negotiated version, such as "TLS 1.3"."""
    return (tls.version() or "no TLS").replace("TLSv", "TLS ")


def common_name(certificate: Any) -> str:
    """Return the CN of a `getpeercert` result, or its first subjectAltName, or ""."""
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    names = certificate.get("subjectAltName", ())
    return str(names[0][1]) if names else ""
