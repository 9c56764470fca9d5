"""A rule about TLS handshakes that one end breaks off, and why: mostly because of a certificate. Pure.

In TLS 1.3 all after the ServerHello is encrypted, so what the records are shows by their sizes (RFC 8446,
sections 4 and 5.2). JSSE pads alerts.

client ── ClientHello ──────────────────────────────> server
client <───────────── alert handshake_failure ── server    no cipher suite or version in common
client <── ServerHello, 23 of 65, 23 of 19 or 35 ── server    no certificate follows
client <── ServerHello, 23 of 811, ... ── server
client ── alert unknown_ca, 23 of 19 or 35, or nothing ──> server    the certificate is not accepted
client ── 23 of 25, 23 of 53 ──> server
client <── 23 of 19, FIN ─────── server    an empty certificate of the client is not enough
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.tls import PROMPT_NS, TlsExchange, exchanges
from bothends.trace.findings.tls_alerts import TLS_HANDSHAKE_FAILED, alert_finding, sent_alert
from bothends.trace.findings.turns import turns
from bothends.trace.model import Call
from bothends.trace.protocols.tls_records import (
    ALERT,
    APPLICATION_DATA,
    HANDSHAKE,
    is_client_hello,
    whole_records,
)

_FINISHED: Final = 53  # bytes: the least contents of a Finished in TLS 1.3, with its type and its tag
_ALERT_SIZES: Final = frozenset({19, 35})  # bytes: an encrypted alert in TLS 1.3; JSSE adds 16 zeros
_NO_CERTIFICATE: Final = 25  # bytes: a Certificate without any, in TLS 1.3, with its type and its tag
_CERTIFICATE: Final = 300  # bytes: a certificate and the signature after it have more
_TRUST: Final = (
    "Give the client the server's certificate, or that of its authority, as trusted, and connect with the "
    "name that the certificate has. To switch the check off leaves no protection."
)
_TRUST_IN_C: Final = 'SSL_CTX_load_verify_locations(context, "ca.pem", NULL);'
_TRUST_IN_PYTHON: Final = (
    'ssl.create_default_context(cafile="ca.pem")   # in Node.js: { ca }; in Java: javax.net.ssl.trustStore'
)
_CERTIFY: Final = (
    "Give the server a certificate and its key. In Java that is a key store: set javax.net.ssl.keyStore and "
    "javax.net.ssl.keyStorePassword, or initialize an SSLContext with a KeyManagerFactory."
)
_CERTIFY_IN_C: Final = 'SSL_CTX_use_certificate_chain_file(context, "cert.pem");'
_CERTIFY_IN_PYTHON: Final = 'context.load_cert_chain("cert.pem", "key.pem")'


class _Break(NamedTuple):
    """How a handshake was broken off without an alert that is seen: by which end, and what it sent last."""

    by_client: bool
    last: Call
    has_certificate: bool  # the server had sent one


def tls_handshake_failed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a TLS handshake that one end broke off: the certificate, the version or the cipher suites."""
    for each in exchanges(trace_index):
        if not is_client_hello(each.asked.data):
            continue
        alert, broken = sent_alert(each), _broken_off(trace_index, each)
        if (alert is None and broken is None) or _succeeds_later(trace_index, each):
            continue
        if alert is not None:
            yield alert_finding(trace_index, each, alert)
        elif broken is not None:
            yield _finding(trace_index, each, broken)


def _broken_off(trace_index: TraceIndex, each: TlsExchange) -> _Break | None:
    """Return how a handshake was broken off, by the sizes of its encrypted records, or None."""
    answers, asked = whole_records(each.answered.data), whole_records(each.asked.data)[1:]
    if each.client is None or not any(kind == HANDSHAKE for kind, _ in answers):
        return None
    sizes = [len(contents) for kind, contents in answers if kind == APPLICATION_DATA]
    in_1_2 = sum(len(contents) for kind, contents in answers if kind == HANDSHAKE)
    has_certificate = sum(sizes) >= _CERTIFICATE or in_1_2 >= _CERTIFICATE
    own = [len(contents) for kind, contents in asked if kind == APPLICATION_DATA]
    if own[:1] == [_NO_CERTIFICATE] and len(own) > 1 and _ends_in_alert(trace_index, each):
        return _Break(False, each.answered.calls[-1], has_certificate)
    goes_on = any(kind in (HANDSHAKE, ALERT) for kind, _ in asked)
    if goes_on or any(size >= _FINISHED for size in own) or not sizes:
        return None  # the client went on, or it is TLS 1.2, which does not encrypt alerts here
    if not has_certificate and sizes[-1] in _ALERT_SIZES and len(sizes) > 1:
        return _Break(False, each.answered.calls[-1], has_certificate=False)
    whole = len(each.asked.data) == each.asked.total
    if not has_certificate or not whole or any(size not in _ALERT_SIZES for size in own):
        return None
    end = _closed_soon(trace_index, each)
    return _Break(True, each.asked.calls[-1] if own else end, True) if end is not None else None


def _ends_in_alert(trace_index: TraceIndex, each: TlsExchange) -> bool:
    """Return whether a server sent only an alert when it had the last of the client's handshake."""
    spoken = turns(trace_index, each.client) if each.client is not None else []
    if not spoken or spoken[-1].kind != "received" or len(spoken) < 4:
        return False
    records = whole_records(spoken[-1].data)
    return [kind for kind, _ in records] == [APPLICATION_DATA] and len(records[0][1]) in _ALERT_SIZES


def _closed_soon(trace_index: TraceIndex, each: TlsExchange) -> Call | None:
    """Return the close() of a client just after it had read what the server sent, or None."""
    if each.client is None or each.got.total < each.answered.total or not each.got.calls:
        return None
    read = each.got.calls[-1]
    close = next(
        (
            call
            for call in trace_index.calls_by_socket[each.client.number]
            if call.name in ("close", "shutdown") and call.number > read.number
        ),
        None,
    )
    # The server may have closed first, after the alert.
    is_soon = close is not None and close.at - (read.until or read.at) < PROMPT_NS
    return close if is_soon else None


def _succeeds_later(trace_index: TraceIndex, each: TlsExchange) -> bool:
    """Return whether the same program connects to the same place once more, and completes the handshake."""
    first = each.asked.calls[0]
    return any(
        other.client is not None
        and each.client is not None
        and other.client.peer == each.client.peer
        and other.asked.calls
        and other.asked.calls[0].process == first.process
        and other.asked.calls[0].number > first.number
        and other.got.total
        and sent_alert(other) is None
        and _broken_off(trace_index, other) is None
        for other in exchanges(trace_index)
    )


def _finding(trace_index: TraceIndex, each: TlsExchange, broken: _Break) -> Finding:
    hello = each.asked.calls[0]
    client = name_of(trace_index, hello.process)
    server = name_of(trace_index, each.answered.calls[0].process) if each.server is not None else "the server"
    remedy, in_c, in_python = _CERTIFY, _CERTIFY_IN_C, _CERTIFY_IN_PYTHON
    basis = "the sizes of the records, which are encrypted"
    if broken.by_client:
        is_silent = broken.last.name in ("close", "shutdown")
        title = "The client probably does not accept the server's certificate"
        text = (
            f"{capitalized(client)} got the certificate of {server} and broke the handshake off "
            f"{'without an alert' if is_silent else 'with what is probably an alert'}. Probably it does not "
            "trust the certificate (self-signed, or of an unknown authority), or the certificate is for "
            "another name, or has expired."
        )
        remedy, in_c, in_python = _TRUST, _TRUST_IN_C, _TRUST_IN_PYTHON
        basis = "the client ended the handshake just after it had received the certificate"
    elif broken.has_certificate:
        title = "The server refused the TLS handshake"
        text = (
            f"{capitalized(client)} sent no certificate of its own when {server} asked for one, and {server} "
            "ended the connection with what is probably an alert: so probably it requires one."
        )
        remedy = (
            "Give the client a certificate that the server trusts, and its key: { key, cert } in Node.js, "
            "javax.net.ssl.keyStore in Java. Or let the server ask for none."
        )
    else:
        title = "The server refused the TLS handshake"
        text = (
            f"{capitalized(server)} answered the ClientHello of {client}, sent no certificate and then what "
            "is probably an alert: so probably it has none."
        )
    status = trace_index.process(hello.process).status
    if status is not None and status > 0:
        text += f" {capitalized(client)} exited with status {status}."
    return Finding(
        TLS_HANDSHAKE_FAILED,
        title,
        text,
        remedy,
        tuple(dict.fromkeys((hello.number, each.answered.calls[0].number, broken.last.number))),
        "inferred",
        basis,
        process=hello.process if broken.by_client else broken.last.process,
        sockets=each.sockets,
        in_c=in_c,
        in_python=in_python,
    )
