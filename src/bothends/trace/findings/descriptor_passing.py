"""A rule about descriptors that are passed over a UNIX socket (SCM_RIGHTS, unix(7)). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bothends.trace.capture.call_data import CONTROL_TRUNCATED
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import capitalized, name_of


def descriptors_discarded(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a receiver whose buffer for ancillary data was too small for the descriptors that were sent."""
    for socket in trace_index.sockets("stream", "datagram", "seqpacket"):
        cut = [call for call in trace_index.receives(socket) if CONTROL_TRUNCATED in call.flags]
        if not cut:
            continue
        name = name_of(trace_index, cut[0].process)
        times = f" {len(cut)} times" if len(cut) > 1 else ""
        yield Finding(
            "descriptors-discarded",
            "The kernel closed descriptors that the receiver had no room for",
            f"{capitalized(name)} received a message with more ancillary data than its buffer takes{times} "
            "(MSG_CTRUNC): the kernel closed the descriptors that did not fit.",
            "Give recvmsg() room for as many descriptors as one message may have, and check MSG_CTRUNC; or "
            "send one descriptor in each message.",
            tuple(call.number for call in cut[:4]),
            process=cut[0].process,
            sockets=(socket.number,),
            in_c="char control[CMSG_SPACE(sizeof(int) * MAX_FDS)]; ... if (msg.msg_flags & MSG_CTRUNC) ...",
            in_python="data, fds, flags, _ = socket.recv_fds(s, 64, maxfds=8)  # check flags & MSG_CTRUNC",
        )
