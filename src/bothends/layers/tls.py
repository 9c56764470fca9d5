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

from bothends.errors import HandshakeFailed, StreamBroken
from bothends.layers.base import Open, Wrapping
from bothends.layers.tls_errors import common_name, not_tls, reason_of, version_of
from bothends.services.base import Conversation, Peer, Post, nowhere

# One call decrypts one record, whatever is asked for.
_RECORD: Final = 16 * 1024

# Of what came in place of a handshake: enough to say what it is.
_KEPT: Final = 32


class _Server(ssl.SSLObject):
    """One end that knows which name the client asked for."""

    asked: str = ""


class TlsLayer:
    """Speaks TLS as a server, as `context` says. The context's callback for server names is wrapped."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.use(context)

    def use(self, context: ssl.SSLContext) -> None:
        """Speak as this context says from the next handshake on: with a renewed certificate, say."""
        before: Any = context.sni_callback

        def note(tls: ssl.SSLObject, name: str | None, chosen: ssl.SSLContext) -> int | None:
            if isinstance(tls, _Server):
                tls.asked = name or ""
            return before(tls, name, chosen) if before is not None else None

        context.sslobject_class = _Server
        context.sni_callback = note
        self.context = context

    def wrap(self, open_inner: Open) -> Open:
        """An opener whose conversations begin with a handshake; `open_inner` opens what is within."""

        def open_wrapped(peer: Peer, post: Post) -> Conversation:
            return TlsConversation(self.context, open_inner, peer, post)

        return open_wrapped


class TlsConversation(Wrapping):
    """One peer's TLS, and the inner conversation within.

    shaking ──done──> open ──close_notify──> half-closed ──all said──> closed
       └──failed───────┴──inner done, cut, broken──────────────────────┘
    """

    def __init__(self, context: ssl.SSLContext, open_inner: Open, peer: Peer, post: Post) -> None:
        super().__init__(open_inner, peer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()  # around the SSLObject, and around sending in order (rule 3)
        self._post_out = None if post is nowhere else post
        self._first = b""
        self._ready = False
        self._ended = False  # the peer's close_notify has come
        self._closed = False  # ours has gone

    def start(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> bytes:
        if self.done:
            return b""
        with self._lock:
            self._incoming.write(data)
        if not self._ready:
            self._shake(data)
        if self._ready and not self.done:
            self._listen()
        return self._flush()

    def end(self) -> bytes:
        if not self._ready:
            if self._first:  # else nobody began: someone looked whether the port is open
                self._fail("the peer closed the connection in the middle of it")
            self._give_up(None)
        elif not self._ended and not self.done:
            self._close()
            self._give_up(
                StreamBroken(
                    str(self._who.address),
                    "cut off: the connection ended without close_notify (RFC 8446, 6.1)",
                )
            )
        return self._flush()

    def leave(self) -> bytes:
        if self._inner is not None and not self.done:
            self._ask(self._inner.leave)
        if self._ready:
            self._close()
        self._give_up(None)
        return self._flush()

    def more(self) -> bytes:
        if self._inner is not None and not self.done:
            said = self._ask(self._inner.more)
            if self._ended and not said and not self.waits:
                self._give_up(None)
            if self.done:
                self._close()
        return self._flush()

    # Shaking hands ---------------------------------------------------------------------------

    def _shake(self, data: bytes) -> None:
        if len(self._first) < _KEPT:
            self._first = (self._first + data)[:_KEPT]
        # OpenSSL waits for a whole record header before it looks.
        if reason := not_tls(self._first):
            self._fail(reason)
            return
        try:
            with self._lock:
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self._fail(reason_of(error))  # OpenSSL has put the alert for the peer into `_outgoing`
            return
        self._ready = True
        self._agreed = self._terms()
        self._begin(self._who, nowhere if self._post_out is None else self._post)
        if self.done:
            self._close()

    def _fail(self, reason: str) -> None:
        self._give_up(HandshakeFailed(str(self._who.address), reason))

    def _terms(self) -> str:
        tls = self._tls
        terms = [version_of(tls)]
        if isinstance(tls, _Server) and tls.asked:
            terms.append(f"SNI {tls.asked}")
        if protocol := tls.selected_alpn_protocol():
            terms.append(f"ALPN {protocol}")
        if name := common_name(tls.getpeercert()):
            terms.append(f"client CN={name}")
        return ", ".join(terms)

    # Listening -------------------------------------------------------------------------------

    def _listen(self) -> None:
        inner = self._inner
        assert inner is not None
        assert self.passed is not None
        heard, ended, broken = self._decrypt()
        if heard:
            self.passed.append((True, heard))
            self._ask(inner.receive, heard)
        if ended and not self.done:
            self._half_closed(inner)
        if broken:
            self._give_up(StreamBroken(str(self._who.address), broken))
        if self.done:
            self._close()

    def _decrypt(self) -> tuple[bytes, bool, str]:
        """All that can be read, whether close_notify came after it, and why no more can ever be read."""
        heard = bytearray()
        try:
            with self._lock:
                while piece := self._tls.read(_RECORD):
                    heard += piece
        except ssl.SSLWantReadError:
            return bytes(heard), False, ""
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            return bytes(heard), False, reason_of(error)
        return bytes(heard), not self._ended, ""

    def _half_closed(self, inner: Conversation) -> None:
        self._ended = True
        assert self.passed is not None
        self.passed.append((True, b""))
        if self._tls.version() == "TLSv1.2":
            self._closed = True  # nothing more may be said
            said = self._ask(inner.end)
            self._closed = False
            how_much = f"{len(said)} bytes of" if said else "the"
            lost = f"{how_much} answer had to be left unsaid: close_notify ends both directions"
            where = str(self._who.address)
            is_lost = said or self.waits
            self._give_up(StreamBroken(where, f"{lost} of TLS 1.2 (RFC 5246, 7.2.1)") if is_lost else None)
        else:
            self._ask(inner.end)
            if not inner.pulls:
                self._give_up(None)

    # Saying ----------------------------------------------------------------------------------

    def _say(self, data: bytes) -> None:
        if not data or self._closed:
            return
        assert self.passed is not None
        self.passed.append((False, data))
        with self._lock:
            self._encrypt(data)

    def _post(self, data: bytes) -> None:
        """What the service posts to this peer, from whatever thread."""
        assert self._post_out is not None
        assert self.passed is not None
        with self._lock:
            if data and not self._closed:
                self._encrypt(data)
                self.passed.append((False, data))
                self._post_out(self._outgoing.read())

    def _encrypt(self, data: bytes) -> None:
        # Only where records are broken already does this raise, and then the peer can't be told anything.
        with contextlib.suppress(ssl.SSLError):
            view = memoryview(data)
            while view:
                view = view[self._tls.write(view) :]

    def _close(self) -> None:
        """Say close_notify, after all else; before closing, or it is a cut (RFC 8446, section 6.1)."""
        with self._lock:
            if not self._closed:
                self._closed = True
                # It goes on to wait for the peer's, which we leave to whoever reads.
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()

    def _flush(self) -> bytes:
        with self._lock:
            data = self._outgoing.read()
            if self._post_out is None or not data:
                return data
            self._post_out(data)
            return b""
