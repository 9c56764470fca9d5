"""TLS around a conversation, without a socket: ciphertext in, ciphertext out (RFC 8446, RFC 5246).

    receive(ciphertext) ──> MemoryBIO ──> SSLObject ──> the inner conversation
    ciphertext          <── MemoryBIO <── SSLObject <──────────┘

So it runs wherever a conversation runs, and a stalled handshake blocks nothing: it is one more connection
that waits for its peer.

1. The inner conversation is opened when the handshake is complete, and never sees a byte of it.
2. close_notify and EOF differ. The peer's close_notify is its EOF. With TLS 1.3 it closes that direction
   only, and pending output is still sent (RFC 8446, section 6.1). With TLS 1.2 it closes both: the receiver
   must reply with its own and discard pending writes (RFC 5246, section 7.2.1). EOF of the connection without
   a close_notify is truncation, by accident or by an attacker, and is reported as a failure.
3. Records are numbered, so they must be sent in the order of their encryption. If a service pushes, a push
   may come from another thread between our return and the sending of the returned bytes. In that case
   everything is pushed, in one locked step with its encryption, and nothing is returned.
4. OpenSSL bounds the memory: a record has at most 16 KiB and is decrypted once it is complete, and a peer's
   certificate chain has at most 100 KiB (SSL_CTX_set_max_cert_list).
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from typing import Any, Final

from bothends.errors import HandshakeFailed, ProtocolViolation
from bothends.layers.base import ConversationFactory, LayerConversation
from bothends.layers.tls_errors import common_name, describe_non_tls, describe_ssl_error, tls_version
from bothends.services.base import Conversation, Peer, Push, discard_push

# Bytes. One read() decrypts at most one record, whatever the requested size.
_MAX_RECORD: Final = 16 * 1024

# Bytes kept of the start of the stream: enough to identify another protocol.
_FIRST_BYTES_KEPT: Final = 32


class _ServerSSLObject(ssl.SSLObject):
    """A server-side TLS object that records the server name requested by the client (SNI)."""

    server_name: str = ""


class TlsLayer:
    """TLS as a server, configured by `context`, whose SNI callback is wrapped."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.set_context(context)

    def set_context(self, context: ssl.SSLContext) -> None:
        """Use this context from the next handshake on, for example with a renewed certificate."""
        previous: Any = context.sni_callback

        def record_name(tls: ssl.SSLObject, name: str | None, chosen: ssl.SSLContext) -> int | None:
            if isinstance(tls, _ServerSSLObject):
                tls.server_name = name or ""
            return previous(tls, name, chosen) if previous is not None else None

        context.sslobject_class = _ServerSSLObject
        context.sni_callback = record_name
        self.context = context

    def wrap(self, open_inner: ConversationFactory) -> ConversationFactory:
        """Return a factory of conversations that shake hands, then run a conversation of `open_inner`."""

        def open_wrapped(peer: Peer, push: Push) -> Conversation:
            return TlsConversation(self.context, open_inner, peer, push)

        return open_wrapped


class TlsConversation(LayerConversation):
    """The TLS session of one peer around an inner conversation.

    handshake ──done──> open ──close_notify──> half-closed ──all sent──> closed
       └──failed─────────┴──inner done, truncated, violated──────────────┘
    """

    def __init__(
        self, context: ssl.SSLContext, open_inner: ConversationFactory, peer: Peer, push: Push
    ) -> None:
        super().__init__(open_inner, peer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()  # guards the SSLObject and the order of sending (rule 3)
        self._push_out = None if push is discard_push else push
        self._first_bytes = b""
        self._handshake_complete = False
        self._close_notify_received = False  # by the peer
        self._close_notify_sent = False  # by us

    def start(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> bytes:
        if self.done:
            return b""
        with self._lock:
            self._incoming.write(data)
        if not self._handshake_complete:
            self._do_handshake(data)
        if self._handshake_complete and not self.done:
            self._process_records()
        return self._flush()

    def end(self) -> bytes:
        if not self._handshake_complete:
            if self._first_bytes:  # without any byte it was a port scan or a health check
                self._handshake_failed("the peer closed the connection during the handshake")
            self._finish(None)
        elif not self._close_notify_received and not self.done:
            self._send_close_notify()
            self._finish(
                ProtocolViolation(
                    str(self._peer.address),
                    "truncated: EOF without close_notify (RFC 8446, 6.1)",
                )
            )
        return self._flush()

    def close(self) -> bytes:
        if self._inner is not None and not self.done:
            self._call_inner(self._inner.close)
        if self._handshake_complete:
            self._send_close_notify()
        self._finish(None)
        return self._flush()

    def produce(self) -> bytes:
        if self._inner is not None and not self.done:
            output = self._call_inner(self._inner.produce)
            if self._close_notify_received and not output and not self.more_later:
                self._finish(None)
            if self.done:
                self._send_close_notify()
        return self._flush()

    # Handshake -------------------------------------------------------------------------------

    def _do_handshake(self, data: bytes) -> None:
        if len(self._first_bytes) < _FIRST_BYTES_KEPT:
            self._first_bytes = (self._first_bytes + data)[:_FIRST_BYTES_KEPT]
        # OpenSSL checks nothing until it has a whole record header.
        if reason := describe_non_tls(self._first_bytes):
            self._handshake_failed(reason)
            return
        try:
            with self._lock:
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._handshake_failed(describe_ssl_error(error))  # `_outgoing` has the alert for the peer
            return
        self._handshake_complete = True
        self._own_handshake_info = self._describe_session()
        self._start_inner(self._peer, discard_push if self._push_out is None else self._push)
        if self.done:
            self._send_close_notify()

    def _handshake_failed(self, reason: str) -> None:
        self._finish(HandshakeFailed(str(self._peer.address), reason))

    def _describe_session(self) -> str:
        tls = self._tls
        terms = [tls_version(tls)]
        if isinstance(tls, _ServerSSLObject) and tls.server_name:
            terms.append(f"SNI {tls.server_name}")
        if protocol := tls.selected_alpn_protocol():
            terms.append(f"ALPN {protocol}")
        if name := common_name(tls.getpeercert()):
            terms.append(f"client CN={name}")
        return ", ".join(terms)

    # Receiving -------------------------------------------------------------------------------

    def _process_records(self) -> None:
        inner = self._inner
        assert inner is not None
        assert self.inner_traffic is not None
        received, ended, violation = self._decrypt()
        if received:
            self.inner_traffic.append((True, received))
            self._call_inner(inner.receive, received)
        if ended and not self.done:
            self._on_close_notify(inner)
        if violation:
            self._finish(ProtocolViolation(str(self._peer.address), violation))
        if self.done:
            self._send_close_notify()

    def _decrypt(self) -> tuple[bytes, bool, str]:
        """Return all readable plaintext, whether close_notify followed it, and the fatal error, if any."""
        plaintext = bytearray()
        try:
            with self._lock:
                while record := self._tls.read(_MAX_RECORD):
                    plaintext += record
        except ssl.SSLWantReadError:
            return bytes(plaintext), False, ""
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            return bytes(plaintext), False, describe_ssl_error(error)
        return bytes(plaintext), not self._close_notify_received, ""

    def _on_close_notify(self, inner: Conversation) -> None:
        self._close_notify_received = True
        assert self.inner_traffic is not None
        self.inner_traffic.append((True, b""))
        if self._tls.version() == "TLSv1.2":
            self._close_notify_sent = True  # no more data may be sent
            output = self._call_inner(inner.end)
            self._close_notify_sent = False
            failure = None
            if output or self.more_later:
                lost = f"{len(output)} bytes of output" if output else "output"
                reason = f"{lost} could not be sent: close_notify of TLS 1.2 closes both directions"
                failure = ProtocolViolation(str(self._peer.address), f"{reason} (RFC 5246, 7.2.1)")
            self._finish(failure)
        else:
            self._call_inner(inner.end)
            if not inner.wants_pull:
                self._finish(None)

    # Sending ---------------------------------------------------------------------------------

    def _send_inner(self, data: bytes) -> None:
        if not data or self._close_notify_sent:
            return
        assert self.inner_traffic is not None
        self.inner_traffic.append((False, data))
        with self._lock:
            self._encrypt(data)

    def _push(self, data: bytes) -> None:
        """Send data that the service pushes to this peer, from any thread."""
        assert self._push_out is not None
        assert self.inner_traffic is not None
        with self._lock:
            if data and not self._close_notify_sent:
                self._encrypt(data)
                self.inner_traffic.append((False, data))
                self._push_out(self._outgoing.read())

    def _encrypt(self, data: bytes) -> None:
        # This raises only after a fatal error, when nothing can be sent to the peer any more.
        with contextlib.suppress(ssl.SSLError):
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view) :]

    def _send_close_notify(self) -> None:
        """Send close_notify, after all data: without it the peer sees truncation (RFC 8446, section 6.1)."""
        with self._lock:
            if not self._close_notify_sent:
                self._close_notify_sent = True
                # unwrap() also waits for the peer's close_notify, which `receive` handles.
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()

    def _flush(self) -> bytes:
        with self._lock:
            data = self._outgoing.read()
            if self._push_out is None or not data:
                return data
            self._push_out(data)
            return b""
