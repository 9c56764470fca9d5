"""TLS around a conversation, without a socket: ciphertext in, ciphertext out (RFC 8446, RFC 5246).

    receive(ciphertext) ──> MemoryBIO ──> SSLObject ──> the inner conversation
    ciphertext          <── MemoryBIO <── SSLObject <──────────┘

So it runs wherever a conversation runs, and a handshake that never ends holds up nobody: it is one more
connection that waits for its peer.

1. The inner conversation is opened when the handshake is over, and never sees a byte of it.
2. Ends are told apart. The peer's close_notify is its end: with TLS 1.3 it closes that direction only,
   and what is left to say is still said (RFC 8446, section 6.1). With TLS 1.2 it closes both: whoever
   receives it must answer with its own and discard pending writes (RFC 5246, section 7.2.1). The
   connection's end without one is a cut, by accident or by someone in between, and told as a failure.
3. Records are numbered, so what is encrypted must be sent in that order. Where a service posts, the post
   may come from another thread between our return and the sending of what we returned; so there
   everything is posted, in one locked step with its encryption, and nothing is returned.
4. Memory is bounded by OpenSSL: a record has 16 KiB at most and is decrypted as soon as it is whole, and
   a peer's certificates have 100 KiB (SSL_CTX_set_max_cert_list).
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

# One call decrypts one record, whatever is asked for.
_MAX_RECORD: Final = 16 * 1024

# Of what came in place of a handshake: enough to say what it is.
_FIRST_BYTES_KEPT: Final = 32


class _ServerSSLObject(ssl.SSLObject):
    """One end that knows which name the client asked for."""

    server_name: str = ""


class TlsLayer:
    """Speaks TLS as a server, as `context` says. The context's callback for server names is wrapped."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.set_context(context)

    def set_context(self, context: ssl.SSLContext) -> None:
        """Speak as this context says from the next handshake on: with a renewed certificate, say."""
        before: Any = context.sni_callback

        def note(tls: ssl.SSLObject, name: str | None, chosen: ssl.SSLContext) -> int | None:
            if isinstance(tls, _ServerSSLObject):
                tls.server_name = name or ""
            return before(tls, name, chosen) if before is not None else None

        context.sslobject_class = _ServerSSLObject
        context.sni_callback = note
        self.context = context

    def wrap(self, open_inner: ConversationFactory) -> ConversationFactory:
        """An opener whose conversations begin with a handshake; `open_inner` opens what is within."""

        def open_wrapped(peer: Peer, post: Push) -> Conversation:
            return TlsConversation(self.context, open_inner, peer, post)

        return open_wrapped


class TlsConversation(LayerConversation):
    """One peer's TLS, and the inner conversation within.

    shaking ──done──> open ──close_notify──> half-closed ──all said──> closed
       └──failed───────┴──inner done, cut, broken──────────────────────┘
    """

    def __init__(
        self, context: ssl.SSLContext, open_inner: ConversationFactory, peer: Peer, push: Push
    ) -> None:
        super().__init__(open_inner, peer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()  # around the SSLObject, and around sending in order (rule 3)
        self._push_out = None if push is discard_push else push
        self._first_bytes = b""
        self._handshake_complete = False
        self._close_notify_received = False  # the peer's close_notify has come
        self._close_notify_sent = False  # ours has gone

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
            if self._first_bytes:  # else nobody began: someone looked whether the port is open
                self._handshake_failed("the peer closed the connection in the middle of it")
            self._finish(None)
        elif not self._close_notify_received and not self.done:
            self._send_close_notify()
            self._finish(
                ProtocolViolation(
                    str(self._peer.address),
                    "cut off: the connection ended without close_notify (RFC 8446, 6.1)",
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
            said = self._call_inner(self._inner.produce)
            if self._close_notify_received and not said and not self.more_later:
                self._finish(None)
            if self.done:
                self._send_close_notify()
        return self._flush()

    # Shaking hands ---------------------------------------------------------------------------

    def _do_handshake(self, data: bytes) -> None:
        if len(self._first_bytes) < _FIRST_BYTES_KEPT:
            self._first_bytes = (self._first_bytes + data)[:_FIRST_BYTES_KEPT]
        # OpenSSL waits for a whole record header before it looks.
        if reason := describe_non_tls(self._first_bytes):
            self._handshake_failed(reason)
            return
        try:
            with self._lock:
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._handshake_failed(
                describe_ssl_error(error)
            )  # OpenSSL has put the alert for the peer into `_outgoing`
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

    # Listening -------------------------------------------------------------------------------

    def _process_records(self) -> None:
        inner = self._inner
        assert inner is not None
        assert self.inner_traffic is not None
        heard, ended, broken = self._decrypt()
        if heard:
            self.inner_traffic.append((True, heard))
            self._call_inner(inner.receive, heard)
        if ended and not self.done:
            self._on_close_notify(inner)
        if broken:
            self._finish(ProtocolViolation(str(self._peer.address), broken))
        if self.done:
            self._send_close_notify()

    def _decrypt(self) -> tuple[bytes, bool, str]:
        """All that can be read, whether close_notify came after it, and why no more can ever be read."""
        heard = bytearray()
        try:
            with self._lock:
                while piece := self._tls.read(_MAX_RECORD):
                    heard += piece
        except ssl.SSLWantReadError:
            return bytes(heard), False, ""
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            return bytes(heard), False, describe_ssl_error(error)
        return bytes(heard), not self._close_notify_received, ""

    def _on_close_notify(self, inner: Conversation) -> None:
        self._close_notify_received = True
        assert self.inner_traffic is not None
        self.inner_traffic.append((True, b""))
        if self._tls.version() == "TLSv1.2":
            self._close_notify_sent = True  # nothing more may be said
            said = self._call_inner(inner.end)
            self._close_notify_sent = False
            how_much = f"{len(said)} bytes of" if said else "the"
            lost = f"{how_much} answer had to be left unsaid: close_notify ends both directions"
            where = str(self._peer.address)
            is_lost = said or self.more_later
            self._finish(
                ProtocolViolation(where, f"{lost} of TLS 1.2 (RFC 5246, 7.2.1)") if is_lost else None
            )
        else:
            self._call_inner(inner.end)
            if not inner.wants_pull:
                self._finish(None)

    # Saying ----------------------------------------------------------------------------------

    def _send_inner(self, data: bytes) -> None:
        if not data or self._close_notify_sent:
            return
        assert self.inner_traffic is not None
        self.inner_traffic.append((False, data))
        with self._lock:
            self._encrypt(data)

    def _push(self, data: bytes) -> None:
        """What the service posts to this peer, from whatever thread."""
        assert self._push_out is not None
        assert self.inner_traffic is not None
        with self._lock:
            if data and not self._close_notify_sent:
                self._encrypt(data)
                self.inner_traffic.append((False, data))
                self._push_out(self._outgoing.read())

    def _encrypt(self, data: bytes) -> None:
        # Only where records are broken already does this raise, and then the peer can't be told anything.
        with contextlib.suppress(ssl.SSLError):
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view) :]

    def _send_close_notify(self) -> None:
        """Say close_notify, after all else; before closing, or it is a cut (RFC 8446, section 6.1)."""
        with self._lock:
            if not self._close_notify_sent:
                self._close_notify_sent = True
                # It goes on to wait for the peer's, which we leave to whoever reads.
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()

    def _flush(self) -> bytes:
        with self._lock:
            data = self._outgoing.read()
            if self._push_out is None or not data:
                return data
            self._push_out(data)
            return b""
