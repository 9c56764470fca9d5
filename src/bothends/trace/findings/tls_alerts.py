"""What the alerts mean by which one end breaks a TLS handshake off (RFC 8446, section 6.2). Pure.

The alert says why, and most programs show only that "the handshake failed". An alert of TLS 1.3 that is sent
after the handshake keys are known is encrypted, and not seen here: `tls_handshakes.py` infers those.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.tls import TlsExchange
from bothends.trace.findings.turns import Turn
from bothends.trace.model import Call
from bothends.trace.protocols.tls import server_name
from bothends.trace.protocols.tls_records import ALERT, HEADER_SIZE, alert_of, whole_records
from bothends.trace.rendering import formatting

TLS_HANDSHAKE_FAILED: Final = "tls-handshake-failed"
_FATAL: Final = b"\2"  # the level of an alert that ends the connection
_NO_FAULT: Final = frozenset({"close_notify", "user_canceled"})

_TRUST: Final = (
    "Give {it} the certificate of the CA that issued it: for a self-signed one, that certificate itself. "
    "Where the issuer is not the root, the other end must send the certificates in between as well."
)
_TRUST_IN_C: Final = 'SSL_CTX_load_verify_locations(context, "ca.pem", NULL);'
_TRUST_IN_PYTHON: Final = (
    'context = ssl.create_default_context(cafile="ca.pem")   # Node.js: { ca: readFileSync("ca.pem") }'
)
_VERSIONS: Final = (
    "Compare the TLS versions and the ciphers that both ends allow, and update or configure the older one."
)


class _Meaning(NamedTuple):
    """What an alert means, and what to do. `{it}` is the end that sent it, `{other}` its peer."""

    title: str
    text: str
    remedy: str
    in_c: str = ""
    in_python: str = ""


_MEANINGS: Final = {
    "unknown_ca": _Meaning(
        "{It} does not trust the certificate of {other}",
        "no CA that {it} trusts has issued it",
        _TRUST,
        _TRUST_IN_C,
        _TRUST_IN_PYTHON,
    ),
    "bad_certificate": _Meaning(
        "{It} rejected the certificate of {other}",
        "usually it was issued for another name than {it} asked for{name}, or it is damaged",
        "Connect with a name that the certificate holds (subjectAltName), or issue one for this name.",
        "SSL_set1_host(tls, host); SSL_set_tlsext_host_name(tls, host);",
        "context.wrap_socket(s, server_hostname=host)   # a name in the certificate",
    ),
    "certificate_expired": _Meaning(
        "The certificate of {other} is not valid at this time",
        "it has expired, or is not valid yet by the clock of {it}",
        "Renew the certificate, and load it again where the program runs already; compare both clocks.",
    ),
    "certificate_revoked": _Meaning(
        "The certificate of {other} is revoked", "its issuer has revoked it", "Issue a new certificate."
    ),
    "certificate_unknown": _Meaning(
        "{It} rejected the certificate of {other}",
        "it does not say more: usually no CA that {it} trusts has issued it, or it has another name",
        _TRUST,
        _TRUST_IN_C,
        _TRUST_IN_PYTHON,
    ),
    "certificate_required": _Meaning(
        "{It} demands a certificate of {other}, which sent none",
        "{it} verifies its peers (mutual TLS)",
        "Load a certificate and its key at the other end, too.",
        "SSL_CTX_use_certificate_chain_file(context, file); SSL_CTX_use_PrivateKey_file(context, key, type);",
        "context.load_cert_chain('client.pem', 'client.key')",
    ),
    "protocol_version": _Meaning(
        "The two ends share no version of TLS", "{it} accepts none that {other} offers", _VERSIONS
    ),
    "handshake_failure": _Meaning(
        "The two ends found no common parameters for TLS",
        "usually they share no cipher or curve, {it} has no certificate, or it demands one of {other}",
        _VERSIONS + " A server needs a certificate and its key.",
        "SSL_CTX_use_certificate_chain_file(context, file); SSL_CTX_use_PrivateKey_file(context, key, type);",
        "context.load_cert_chain('cert.pem', 'key.pem')",
    ),
    "insufficient_security": _Meaning(
        "The two ends share no cipher that is strong enough", "{it} demands a stronger one", _VERSIONS
    ),
    "unrecognized_name": _Meaning(
        "{It} does not know the name that {other} asked for",
        "it has no certificate for this name{name}",
        "Ask for a name that the server is configured for, or configure this one.",
    ),
    "no_application_protocol": _Meaning(
        "The two ends share no application protocol (ALPN)",
        "{it} supports none of those that {other} offers",
        "Offer a protocol that the other end supports, such as http/1.1.",
    ),
}

_ANY: Final = _Meaning(
    "{It} broke the TLS handshake off", "it did not accept what {other} had sent", _VERSIONS
)


class SentAlert(NamedTuple):
    """An alert that is not encrypted: which end sent it, its name, and the call that moved it."""

    by_client: bool
    name: str
    call: Call


def sent_alert(each: TlsExchange) -> SentAlert | None:
    """Return the fatal alert that ended a handshake, or None."""
    for by_client, turn in ((True, each.asked), (False, each.answered)):
        pieces = [turn.data, *(call.data for call in turn.calls)]  # the data of the turn may be cut before it
        for kind, contents in (record for data in pieces for record in whole_records(data)):
            name = alert_of(contents) if kind == ALERT and contents[:1] == _FATAL else ""
            if name and name not in _NO_FAULT:
                return SentAlert(by_client, name, _call_of(turn, contents))
    return None


def _call_of(turn: Turn, contents: bytes) -> Call:
    return next((call for call in reversed(turn.calls) if contents in call.data), turn.calls[-1])


def alert_finding(trace_index: TraceIndex, each: TlsExchange, alert: SentAlert) -> Finding:
    """Return the finding for a handshake that ended with an alert."""
    meaning = _MEANINGS.get(alert.name, _ANY)
    hello = each.asked.calls[0]
    answer = each.answered.calls[:1]
    client = name_of(trace_index, hello.process) if each.client is not None else "the client"
    server = name_of(trace_index, answer[0].process) if answer and each.server is not None else "the server"
    it, other = (client, server) if alert.by_client else (server, client)
    asked = server_name(hello.data[HEADER_SIZE:])
    name = f" ({formatting.quoted(asked, len(asked), 60)})" if asked else ""
    words = {"it": it, "It": capitalized(it), "other": other, "name": name}
    why = meaning.text.format(**words)
    text = f"{capitalized(it)} ended the TLS handshake with the alert {alert.name}: {why}."
    if alert.name == "handshake_failure" and runs(trace_index, alert.call.process, "java"):
        text += " A server of Java without a key store answers so."
    status = trace_index.process(hello.process).status
    if status is not None and status > 0 and each.client is not None:
        text += f" {capitalized(client)} exited with status {status}."
    return Finding(
        TLS_HANDSHAKE_FAILED,
        capitalized(meaning.title.format(**words)),
        text,
        meaning.remedy.format(**words),
        tuple(dict.fromkeys(call.number for call in (hello, *answer, alert.call))),
        process=alert.call.process,
        sockets=each.sockets,
        in_c=meaning.in_c,
        in_python=meaning.in_python,
    )
