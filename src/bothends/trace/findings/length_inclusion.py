"""A rule about a length that counts its own prefix at one end, and not at the other. Pure.

00 00 00 0f hello world     15 = 4 + 11, as the sender counts
recv(4), recv(15) = 11      the reader waits for 4 bytes more
"""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of
from bothends.trace.findings.framing import FRAMINGS, PrefixFormat, is_stuck, next_read, read_of_header
from bothends.trace.findings.standstill import bytes_text, call_name
from bothends.trace.findings.turns import peer_socket, stream_of


def length_includes_prefix(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a sender that counts the prefix in the length, and a reader that does not."""
    for writer in trace_index.sockets("stream"):
        reader = peer_socket(trace_index, writer)
        if reader is None:
            continue
        sent, received = stream_of(trace_index, writer, "sent"), stream_of(trace_index, reader, "received")
        for framing in FRAMINGS:
            other = PrefixFormat(framing.width, framing.order)
            sizes = framing.sizes(sent.data, sent.total) if framing.includes_prefix else []
            header = read_of_header(received, framing.width) if sizes and sizes[0] else None
            following = next_read(trace_index, header) if header is not None else None
            if header is None or following is None or other.sizes(sent.data, sent.total):
                continue
            length = sizes[0] + framing.width
            if following.requested != length or not is_stuck(trace_index, reader, following):
                continue
            name, sender = name_of(trace_index, header.process), name_of(trace_index, sent.calls[0].process)
            yield Finding(
                "length-includes-prefix",
                "One end counts the prefix in the length of a message, and the other does not",
                f"{capitalized(sender)} wrote the length {length} before {bytes_text(sizes[0])}: it counts "
                f"the {framing.width} bytes of the length too. {capitalized(name)} read the length and then "
                f"asked for {length} more in {call_name(following)}, so it waits for {framing.width} bytes "
                "that are not sent.",
                "Let both ends count the same: usually the bytes after the prefix.",
                (sent.calls[0].number, header.number, following.number),
                process=sent.calls[0].process,
                sockets=(writer.number, reader.number),
                in_c="uint32_t n = htonl(size);   /* without sizeof n; or the reader: ntohl(n) - sizeof n */",
                in_python='s.sendall(struct.pack("!I", len(data)) + data)   # not len(data) + 4',
            )
            break
