"""What OpenSSL means, in words: why a handshake failed, and what one agreed.

OpenSSL names its reasons ("SSLV3_ALERT_CERTIFICATE_UNKNOWN"); an alert that the peer sent is one of
RFC 8446, section 6. Whose fault it is, and what to do, is not in the name.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

from bothends.escaping import escape

# The first byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
HANDSHAKE_RECORD: Final = 0x16

_EXCERPT_SIZE: Final = 24  # bytes of what came instead

_REASONS: Final = {
    "UNSUPPORTED_PROTOCOL": "no version of TLS that both speak (1.2 is the least here)",
    "VERSION_TOO_LOW": "no version of TLS that both speak (1.2 is the least here)",
    "NO_SHARED_CIPHER": "no cipher that both know",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no way to sign that both know",
    "NO_SUITABLE_KEY_SHARE": "no way to agree on a key that both know",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate, and one is asked for",
    "WRONG_VERSION_NUMBER": "what came is not TLS",
    "HTTP_REQUEST": "what came is HTTP without TLS",
    "RECORD_LAYER_FAILURE": "what came is not TLS",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record was changed on its way",
    "BAD_RECORD_TYPE": "what came is not TLS",
    "UNEXPECTED_MESSAGE": "what came has no place in a handshake",
    "NO_RENEGOTIATION": "it asked for new keys in a way that is switched off (renegotiation)",
    # Alerts: what the other end says of us.
    "TLSV1_ALERT_PROTOCOL_VERSION": "it refuses our versions of TLS (1.2 and 1.3)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it finds nothing that both can agree on (alert handshake_failure)",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate's issuer (alert unknown_ca)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate (alert certificate_unknown)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate (alert bad_certificate)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired, it says (alert certificate_expired)",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our certificate is revoked, it says (alert certificate_revoked)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate of ours (alert certificate_required)",
    "TLSV1_ALERT_ACCESS_DENIED": "it denies us access (alert access_denied)",
    "TLSV1_ALERT_DECRYPT_ERROR": "it could not check a signature (alert decrypt_error)",
    "TLSV1_ALERT_INTERNAL_ERROR": "something went wrong inside of it (alert internal_error)",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it speaks none of our ALPN protocols",
    "TLSV1_UNRECOGNIZED_NAME": "it knows no such host (alert unrecognized_name)",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": "it did not expect what we sent (alert unexpected_message)",
    "TLSV1_ALERT_USER_CANCELLED": "it gave up (alert user_canceled)",
}


def describe_non_tls(first: bytes) -> str:
    """What to say when a stream that began with `first` can't be TLS; "" if it can."""
    if not first or first[0] == HANDSHAKE_RECORD:
        return ""
    return f'not TLS: it began with "{escape(first[:_EXCERPT_SIZE])}"'


def describe_ssl_error(error: ssl.SSLError) -> str:
    """Why, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {error.verify_message}"
    name = error.reason or ""
    return _REASONS.get(name) or (name.replace("_", " ").lower() if name else str(error))


def tls_version(tls: ssl.SSLObject | ssl.SSLSocket) -> str:
    """ "TLS 1.3"."""
    return (tls.version() or "no TLS").replace("TLSv", "TLS ")


def common_name(certificate: Any) -> str:
    """The CN of a certificate as `getpeercert` gives it, or the first of its other names, or ""."""
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    names = certificate.get("subjectAltName", ())
    return str(names[0][1]) if names else ""
