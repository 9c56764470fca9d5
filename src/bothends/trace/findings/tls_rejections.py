"""A rule about a TLS handshake that one end ends with an alert (RFC 8446, section 6.2). Pure.

The alert says why, and most programs show only that "the handshake failed". An alert of TLS 1.3 that is sent
after the handshake keys are known is encrypted, and not seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.tls import TlsExchange, exchanges
from bothends.trace.model import Call
from bothends.trace.protocols.tls import server_name
from bothends.trace.protocols.tls_records import HEADER_SIZE, alert_text, is_client_hello
from bothends.trace.rendering import formatting

_FATAL: Final = 2  # the level of an alert that ends the connection

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
        "probably it was issued for another name than {it} asked for{name}, or it is damaged",
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
        "probably they share no cipher or curve, {it} has no certificate, or it demands one of {other}",
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


def tls_rejected(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a TLS handshake that one end ended with an alert, and was not repeated with success."""
    for each in exchanges(trace_index):
        if not is_client_hello(each.asked.data):
            continue
        sender, alert = _alert(trace_index, each)
        meaning = _MEANINGS.get(alert_text(alert.data)) if alert is not None else None
        if alert is None or meaning is None or _succeeds_later(trace_index, each):
            continue
        yield _finding(trace_index, each, sender, alert, meaning)


def _alert(trace_index: TraceIndex, each: TlsExchange) -> tuple[Literal["client", "server"], Call | None]:
    """Return the end that sent a fatal alert, and the call that sent or received it, or None."""
    ends: tuple[tuple[Literal["client", "server"], bool], ...] = (("client", True), ("server", False))
    for end, is_client in ends:
        for socket, names in (
            (each.client, SENDING if is_client else RECEIVING),
            (each.server, RECEIVING if is_client else SENDING),
        ):
            for call in trace_index.calls_by_socket[socket.number] if socket is not None else ():
                if call.name in names and alert_text(call.data) and call.data[5] == _FATAL:
                    return end, call
    return "client", None


def _succeeds_later(trace_index: TraceIndex, failed: TlsExchange) -> bool:
    """Return whether the client connected to the same address again, and got more than an alert there."""
    if failed.client is None:
        return False
    hello = failed.asked.calls[0]
    return any(
        other.client is not None
        and other.client.peer == failed.client.peer
        and other.asked.calls
        and other.asked.calls[0].process == hello.process
        and other.asked.calls[0].number > hello.number
        and other.got.total
        and _alert(trace_index, other)[1] is None
        for other in exchanges(trace_index)
    )


def _finding(
    trace_index: TraceIndex,
    each: TlsExchange,
    sender: Literal["client", "server"],
    alert: Call,
    meaning: _Meaning,
) -> Finding:
    hello = each.asked.calls[0]
    answer = each.answered.calls[:1]
    client = name_of(trace_index, hello.process) if each.client is not None else "the client"
    server = name_of(trace_index, answer[0].process) if answer and each.server is not None else "the server"
    it, other = (client, server) if sender == "client" else (server, client)
    asked = server_name(hello.data[HEADER_SIZE:])
    name = f" ({formatting.quoted(asked, len(asked), 60)})" if asked else ""
    words = {"it": it, "It": capitalized(it), "other": other, "name": name}
    return Finding(
        "tls-rejected",
        capitalized(meaning.title.format(**words)),
        f"{capitalized(it)} ended the TLS handshake with the alert {alert_text(alert.data)}: "
        f"{meaning.text.format(**words)}.",
        meaning.remedy.format(**words),
        tuple(dict.fromkeys(call.number for call in (hello, *answer, alert))),
        process=alert.process,
        sockets=each.sockets,
        in_c=meaning.in_c,
        in_python=meaning.in_python,
    )
