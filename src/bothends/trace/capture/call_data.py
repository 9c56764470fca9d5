"""Fill in what the arguments of a call say about data and time limits. Pure."""

from __future__ import annotations

from typing import Final

from bothends.trace.capture import arguments
from bothends.trace.model import Call

# The flag of a received message whose ancillary data was cut: msg_flags had MSG_CTRUNC (recvmsg(2)).
CONTROL_TRUNCATED: Final = "control truncated"
# The argument that is the time limit of a call.
_TIME_LIMITS: Final = {
    "poll": 2,
    "ppoll": 2,
    "select": 4,
    "_newselect": 4,
    "pselect6": 4,
    "epoll_wait": 3,
    "epoll_pwait": 3,
    "epoll_pwait2": 3,
    "nanosleep": 0,
    "clock_nanosleep": 2,
}


def fill_data(call: Call, words: list[str]) -> None:
    """Fill in the data of a send or a receive, its size, its flags and its address."""
    name = call.name
    if len(words) < 2:
        return
    if name.endswith("mmsg"):
        call.messages = arguments.mmsg_messages(words[1])
        call.data = b"".join(each.data for each in call.messages)
        call.flags = flags_of(words, 3)
    elif name in ("sendmsg", "recvmsg"):
        call.data = arguments.iovec_bytes(words[1])
        call.requested = arguments.iovec_length(words[1])
        call.address = arguments.socket_address(words[1].partition("msg_iov")[0])
        call.flags = flags_of(words, 2)
        message_flags = words[1].rpartition("msg_flags=")[2]
        if "MSG_TRUNC" in message_flags:
            call.flags |= {"truncated"}
        if "MSG_CTRUNC" in message_flags:
            call.flags |= {CONTROL_TRUNCATED}
    elif name in ("writev", "readv"):
        call.data = arguments.iovec_bytes(words[1])
        call.requested = arguments.iovec_length(words[1])
    elif name in ("sendfile", "splice"):
        at = 3 if name == "sendfile" else 4
        call.requested = int(words[at]) if len(words) > at and words[at].isdigit() else None
    else:
        call.data = arguments.string_bytes(words[1])
        call.requested = int(words[2]) if len(words) > 2 and words[2].isdigit() else None
        call.flags = flags_of(words, 3)
        if len(words) > 4:
            call.address = arguments.socket_address(words[4])


def fill_time_limit(call: Call, words: list[str]) -> None:
    """Fill in the time limit of a call that waits or sleeps."""
    at = _TIME_LIMITS.get(call.name)
    if at is not None and at < len(words) and "TIMER_ABSTIME" not in words:
        call.timeout_ns = arguments.time_limit(words[at])


def flags_of(words: list[str], at: int) -> frozenset[str]:
    """Return the flags of a send or a receive, which is the argument at an index."""
    if len(words) <= at or not words[at].startswith("MSG_"):
        return frozenset()
    return frozenset(words[at].split("|"))
