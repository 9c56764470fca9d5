"""Join plaintext of TLS to the system calls that carried it, encrypted. Pure.

    SSL_write ── its bytes are in ──> send        receive ── its bytes are in ──> SSL_read

1. The socket calls that a thread makes within SSL_write() or SSL_read() carry the bytes.
2. They show the socket of a session. So does SSL_set_fd(). Both are remembered, because libssl may have read
   the bytes ahead: then the last receive on the socket is the cause of an SSL_read() without a receive.
3. A program may move the bytes itself (BIO_s_mem, as Python's asyncio does). Then the thread's next send of
   application data carries what SSL_write() took, and its last receive caused SSL_read().
4. A record is added when all calls before its end are known: see `session.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from bothends.trace.capture.calls import RECEIVING, SENDING
from bothends.trace.capture.tls_source import TLS_CALLS, TLS_READS, TlsRecord
from bothends.trace.model import Call, CausalLink, Point, Relation, Trace, trim_oldest
from bothends.trace.protocols.tls_records import APPLICATION_DATA, CONTENT_TYPES, HANDSHAKE, HEADER_SIZE

MAX_RECENT: Final = 256  # calls of a thread that may have carried bytes
MAX_SESSIONS: Final = 20_000
MAX_UNSENT: Final = 64  # SSL_write() of a thread whose bytes no call has sent yet
# strace adds a duration of another clock to the time of a start (clock_gettime(2)): NTP slews the one against
# the other by 1 in 2,000 at most. Nanoseconds, and a share of the duration.
_SLACK: Final = 2_000
_SLEW: Final = 2_000
MAX_FRAGMENT: Final = 16384  # bytes of plaintext in a record (RFC 8446, section 5.1)
_HELLO_OR_DATA: Final = frozenset({HANDSHAKE, APPLICATION_DATA})


class TlsMatcher:
    """Turns records of libssl into calls, each with its socket and its links."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._numbers: dict[int, int] = {}  # of the processes, by pid
        self._recent: dict[int, deque[Call]] = {}  # sends and receives on streams, by thread
        self._sessions: dict[tuple[int, int], Call] = {}  # by pid and session: a call on its socket
        self._by_descriptor: dict[
            tuple[int, int], Call
        ] = {}  # by pid and descriptor: the last call on a stream
        self._unsent: dict[int, deque[Call]] = {}  # by thread
        self._seen: set[int] = set()  # processes whose plaintext was seen, by number
        self._encrypted: dict[int, None] = {}  # processes that moved records of TLS, by number

    def observe(self, point: Point) -> Iterator[tuple[Call, int, Relation]]:
        """Note a call. Returns links that lacked it: the call of libssl, the effect, the kind."""
        event = point.event
        if type(event) is not Call:
            if (process := getattr(event, "process", None)) and process in self._trace.processes:
                self._numbers[self._trace.processes[process].pid] = process
            return
        name = event.name
        if not point.is_end or event.socket is None or event.failed or not event.size:
            return
        is_send = name in SENDING
        if not is_send and name not in RECEIVING:
            return
        socket = self._trace.sockets.get(event.socket)
        if socket is None or socket.kind != "stream":
            return
        recent = self._recent.get(event.thread)
        if recent is None:
            trim_oldest(self._recent, MAX_SESSIONS)
            recent = self._recent[event.thread] = deque(maxlen=MAX_RECENT)
        recent.append(event)
        if event.descriptor is not None:
            trim_oldest(self._by_descriptor, MAX_SESSIONS)
            self._by_descriptor[event.process, event.descriptor] = event
        kind = _record_type(event)
        if kind in _HELLO_OR_DATA:
            self._encrypted[event.process] = None
        unsent = self._unsent.get(event.thread) if is_send else None
        if unsent and _may_carry(event, unsent[0].size):
            del self._unsent[event.thread]
            for write in unsent:
                if write.socket in (None, event.socket):
                    self._set_socket(write, event)
                    yield write, event.number, "carries"

    def add(self, record: TlsRecord, number: int) -> tuple[Call, list[CausalLink]] | None:
        """Return the call of a record, with the event number `number`, and the links to and from it.

        None: the record is no transfer of a known process.
        """
        process = self._numbers.get(record.process)
        if process is None or process not in self._trace.processes:
            return None
        session = (record.process, record.ssl)
        if record.function not in TLS_CALLS:
            last = self._by_descriptor.get((process, record.size))
            if last is not None:
                self._remember(session, last)
            else:
                self._sessions.pop(session, None)
            return None
        self._seen.add(process)
        is_read = record.function in TLS_READS
        call = Call(number, process, record.thread, record.function, record.at, record.until)
        call.result = call.size = call.requested = record.size
        call.data = record.data
        names = RECEIVING if is_read else SENDING
        carried = [
            each
            for each in self._recent.get(record.thread, ())
            if each.name in names
            and each.at >= record.at - _SLACK
            and _end(each) <= record.until
            and _may_continue(each, is_send=not is_read)
        ]
        known = self._sessions.get(session)
        if known is not None and any(each.socket == known.socket for each in carried):
            carried = [each for each in carried if each.socket == known.socket]
        if not carried:
            carried = self._last_receive(record, known) if is_read else self._next_send(record, known)
        if carried:
            self._remember(session, carried[-1])
            known = carried[-1]
        if known is not None:
            self._set_socket(call, known)
        elif is_read:
            return call, []
        if is_read:
            return call, [CausalLink(each.number, number, "feeds") for each in carried]
        if not carried:
            trim_oldest(self._unsent, MAX_SESSIONS)
            self._unsent.setdefault(record.thread, deque(maxlen=MAX_UNSENT)).append(call)
        return call, [CausalLink(number, each.number, "carries") for each in carried]

    def _last_receive(self, record: TlsRecord, known: Call | None) -> list[Call]:
        """Return the receive that read the bytes ahead, if there is one: rules 2 and 3."""
        for each in reversed(self._recent.get(record.thread, ())):
            if each.name in RECEIVING and _end(each) <= record.until:
                if known is None or each.socket == known.socket:
                    return [each]
                return []
        return []

    def _next_send(self, record: TlsRecord, known: Call | None) -> list[Call]:
        """Return the send that carried bytes which the program moved itself, if it is known already."""
        for each in self._recent.get(record.thread, ()):
            if each.name in SENDING and each.at >= record.until and _may_carry(each, record.size):
                if known is None or each.socket == known.socket:
                    return [each]
                return []
        return []

    def _remember(self, session: tuple[int, int], call: Call) -> None:
        trim_oldest(self._sessions, MAX_SESSIONS)
        self._sessions[session] = call

    def _set_socket(self, call: Call, carrying: Call) -> None:
        call.socket, call.descriptor = carrying.socket, carrying.descriptor

    def processes_not_seen(self) -> list[int]:
        """Return the processes that moved records of TLS, and whose plaintext was not seen: their numbers."""
        return [each for each in self._encrypted if each not in self._seen]


def _end(call: Call) -> int:
    """Return the earliest time at which a call may have ended."""
    return call.at + call.duration - call.duration // _SLEW - _SLACK


def _record_type(call: Call) -> int:
    """Return the type of the record of TLS that a call's data begins with; 0 for none."""
    data = call.data
    return data[0] if len(data) > 2 and data[0] in CONTENT_TYPES and data[1] == 3 else 0


def _may_carry(call: Call, size: int) -> bool:
    """Return whether a call's data has a record of application data with room for `size` bytes."""
    data, at = call.data, 0
    while at + HEADER_SIZE <= len(data) and data[at] in CONTENT_TYPES and data[at + 1] == 3:
        length = int.from_bytes(data[at + 3 : at + HEADER_SIZE], "big")
        if data[at] == APPLICATION_DATA and length >= min(size, MAX_FRAGMENT):
            return True
        at += HEADER_SIZE + length
    return False


def _may_continue(call: Call, *, is_send: bool) -> bool:
    """Return whether a call within one of libssl may carry its bytes: a handshake does not."""
    return not is_send or not _record_type(call) or _may_carry(call, 0)
