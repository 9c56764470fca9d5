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
from bothends.trace.findings.endpoints import capitalized, name_of, runs
from bothends.trace.findings.tls import PROMPT_NS, TlsExchange, exchanges
from bothends.trace.findings.turns import Turn, turns
from bothends.trace.model import Call
from bothends.trace.protocols.tls_records import (
    ALERT,
    DATA,
    HANDSHAKE,
    alert_of,
    is_client_hello,
    whole_records,
)

_FINISHED: Final = 53  # bytes: the least contents of a Finished in TLS 1.3, with its type and its tag
_ALERT_SIZES: Final = frozenset({19, 35})  # bytes: an encrypted alert in TLS 1.3; JSSE adds 16 zeros
_NO_CERTIFICATE: Final = 25  # bytes: a Certificate without any, in TLS 1.3, with its type and its tag
_CERTIFICATE: Final = 300  # bytes: a certificate and the signature after it have more
_NO_FAULT: Final = frozenset({"close_notify", "user_canceled"})
# Alerts by which a client rejects a certificate (RFC 8446, section 6.2).
_OF_CERTIFICATE: Final = frozenset(
    {
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
    }
)
_REASONS: Final = {
    "handshake_failure": "no cipher suite in common, or the server has no certificate",
    "protocol_version": "no version of TLS in common",
    "insufficient_security": "the server wants stronger cipher suites",
    "unrecognized_name": "the server has no certificate for the name that the client asked for",
    "no_application_protocol": "no protocol in common in ALPN",
    "certificate_required": "the server wants a certificate of the client",
    "unknown_ca": "the certificate is self-signed, or of an authority that is not among the trusted ones",
    "certificate_expired": "the certificate is not valid any more, or not yet",
    "bad_certificate": "the certificate is not valid for this name, or it is damaged",
    "certificate_unknown": "the certificate is not trusted: it may be self-signed, or for another name",
}
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


class _Break(NamedTuple):
    """How a handshake was broken off: by which end, what it sent last, and what that shows."""

    by_client: bool
    last: Call
    alert: str  # "" if it is encrypted, or none was sent
    has_certificate: bool  # the server had sent one


def tls_handshake_failed(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a TLS handshake that one end broke off: the certificate, the version or the cipher suites."""
    for each in exchanges(trace_index):
        if not is_client_hello(each.asked.data) or not each.answered.total or each.client is None:
            continue
        broken = _broken_off(trace_index, each)
        if broken is not None and not _succeeds_later(trace_index, each):
            yield _finding(trace_index, each, broken)


def _broken_off(trace_index: TraceIndex, each: TlsExchange) -> _Break | None:
    answers, asked = whole_records(each.answered.data), whole_records(each.asked.data)[1:]
    if not answers:
        return None
    alert = _alert(answers)
    is_early = not any(kind == HANDSHAKE for kind, _ in answers)
    if alert and (is_early or alert not in _OF_CERTIFICATE):
        return _Break(False, each.answered.calls[-1], alert, has_certificate=not is_early)
    sizes = [len(contents) for kind, contents in answers if kind == DATA]
    in_1_2 = sum(len(contents) for kind, contents in answers if kind == HANDSHAKE)
    has_certificate = sum(sizes) >= _CERTIFICATE or in_1_2 >= _CERTIFICATE
    alert = _alert(asked)
    if alert:
        return _Break(True, each.asked.calls[-1], alert, has_certificate)
    own = [len(contents) for kind, contents in asked if kind == DATA]
    if own[:1] == [_NO_CERTIFICATE] and len(own) > 1 and _ends_in_alert(trace_index, each):
        return _Break(False, each.answered.calls[-1], "", has_certificate)
    goes_on = any(kind in (HANDSHAKE, ALERT) for kind, _ in asked)
    if goes_on or any(size >= _FINISHED for size in own) or is_early or not sizes:
        return None  # the client went on, or it is TLS 1.2, which does not encrypt alerts here
    if not has_certificate and sizes[-1] in _ALERT_SIZES and len(sizes) > 1:
        return _Break(False, each.answered.calls[-1], "", has_certificate=False)
    whole = len(each.asked.data) == each.asked.total
    if not has_certificate or not whole or any(size not in _ALERT_SIZES for size in own):
        return None
    end = _closed_soon(trace_index, each)
    return _Break(True, each.asked.calls[-1] if own else end, "", True) if end is not None else None


def _alert(records: list[tuple[int, bytes]]) -> str:
    """Return the first alert that is not encrypted and means a failure, or ""."""
    names = (alert_of(contents) for kind, contents in records if kind == ALERT)
    return next((name for name in names if name and name not in _NO_FAULT), "")


def _ends_in_alert(trace_index: TraceIndex, each: TlsExchange) -> bool:
    """Return whether a server sent only an alert when it had the last of the client's handshake."""
    spoken = turns(trace_index, each.client) if each.client is not None else []
    if not spoken or spoken[-1].kind != "received" or len(spoken) < 4:
        return False
    records = whole_records(spoken[-1].data)
    return [kind for kind, _ in records] == [DATA] and len(records[0][1]) in _ALERT_SIZES


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
        and _broken_off(trace_index, other) is None
        for other in exchanges(trace_index)
    )


def _finding(trace_index: TraceIndex, each: TlsExchange, broken: _Break) -> Finding:
    hello = each.asked.calls[0]
    client = name_of(trace_index, hello.process)
    server = _server_name(trace_index, each.answered, each)
    of_certificate = broken.by_client and (broken.alert in _OF_CERTIFICATE or not broken.alert)
    reason = _REASONS.get(broken.alert, "")
    why = f" ({reason})" if reason else ""
    basis = ""
    remedy, in_c, in_python = _TRUST, _TRUST_IN_C, _TRUST_IN_PYTHON
    if of_certificate:
        title = "The client does not accept the server's certificate"
        if broken.alert:
            how = f"broke the handshake off with the alert {broken.alert}{why}"
        else:
            title = "The client probably does not accept the server's certificate"
            is_silent = broken.last.name in ("close", "shutdown")
            ending = "without an alert" if is_silent else "with what is probably an alert"
            how = (
                f"broke the handshake off {ending}. Probably it does not trust the certificate (self-signed, "
                "or of an unknown authority), or the certificate is for another name, or has expired"
            )
            basis = "the client ended the handshake just after it had received the certificate"
        text = f"{capitalized(client)} got the certificate of {server} and {how}."
    elif broken.by_client:
        title = "The client broke the TLS handshake off"
        text = f"{capitalized(client)} answered the ServerHello with the alert {broken.alert}{why}."
        remedy = "Set versions, cipher suites and ALPN protocols that both ends have."
        in_c, in_python = "SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);", ""
    else:
        title = "The server refused the TLS handshake"
        of_client = not broken.alert and broken.has_certificate
        wants_one = broken.alert in ("", "handshake_failure") and not of_client
        text = (
            f"{capitalized(client)} sent no certificate of its own when {server} asked for one, and {server} "
            "ended the connection with what is probably an alert: so probably it requires one."
            if of_client
            else f"{capitalized(server)} answered the ClientHello of {client} with the alert "
            f"{broken.alert}{why}."
            if broken.alert
            else f"{capitalized(server)} answered the ClientHello of {client}, sent no certificate and then "
            "what is probably an alert: so probably it has none."
        )
        if not broken.alert:
            basis = "the sizes of the records, which are encrypted"
        is_java = runs(trace_index, broken.last.process, "java")
        if is_java and wants_one and broken.alert:
            text += " A server of Java without a key store answers so."
        remedy = (
            "Give the client a certificate that the server trusts, and its key: { key, cert } in Node.js, "
            "javax.net.ssl.keyStore in Java. Or let the server ask for none."
            if of_client
            else _CERTIFY
            if wants_one
            else "Set versions, cipher suites and names that both ends have."
        )
        if not wants_one and not of_client:
            in_c = in_python = ""
        else:
            in_c = 'SSL_CTX_use_certificate_chain_file(context, "cert.pem");'
            in_python = 'context.load_cert_chain("cert.pem", "key.pem")'
    status = trace_index.process(hello.process).status
    if status is not None and status > 0:
        text += f" {capitalized(client)} exited with status {status}."
    return Finding(
        "tls-handshake-failed",
        title,
        text,
        remedy,
        tuple(dict.fromkeys((hello.number, each.answered.calls[0].number, broken.last.number))),
        "inferred" if basis else "seen",
        basis,
        process=hello.process if broken.by_client else broken.last.process,
        sockets=each.sockets,
        in_c=in_c,
        in_python=in_python,
    )


def _server_name(trace_index: TraceIndex, answered: Turn, each: TlsExchange) -> str:
    return name_of(trace_index, answered.calls[0].process) if each.server is not None else "the server"
