"""How a program or a thread failed just after it had read something. Pure."""

from __future__ import annotations

from typing import Final

from bothends.trace.capture.calls import SENDING
from bothends.trace.findings.base import TraceIndex
from bothends.trace.model import Call

_PROMPT_NS: Final = 1_000_000_000  # nanoseconds between an error that is not handled and the exit


def failure_after(trace_index: TraceIndex, read: Call) -> str:
    """Return how a program or a thread failed just after a read, as part of a sentence; "" if it did not."""
    at = read.until or read.at
    ended, status = trace_index.ended_at(read.process), trace_index.process(read.process).status
    if ended is not None and ended - at < _PROMPT_NS:
        return f"exited with status {status}" if (status or 0) > 0 else ""
    thread = trace_index.trace.thread_exits.get(read.thread)
    is_prompt = thread is not None and 0 <= thread - at < _PROMPT_NS
    sent = any(call.size and call.name in SENDING for call in trace_index.later_calls(read))
    return "the thread that read them ended at once" if is_prompt and not sent else ""
