"""What a page says about one event: its meaning, the line in C and in Python, arguments, data. Pure."""

from __future__ import annotations

from typing import Any

from bothends.escaping import escape_controls
from bothends.trace.model import Call, KernelEvent, Packet, ProcessEvent, Trace, TraceEvent
from bothends.trace.protocols.table import said
from bothends.trace.rendering import explain, formatting
from bothends.trace.rendering.kernel_text import kernel_text


def details_of(trace: Trace, number: int) -> dict[str, Any]:
    """Return what a page says about an event beside its row, as plain text."""
    event = trace.event(number)
    details = _describe(trace, event) if event is not None else {"title": "", "explanation": ""}
    return {name: _plain(item) for name, item in details.items() if item}


def _plain(item: Any) -> Any:
    if isinstance(item, str):
        return escape_controls(item)
    return [[escape_controls(each) for each in pair] for pair in item]


def _describe(trace: Trace, event: TraceEvent) -> dict[str, Any]:
    match event:
        case Call():
            entry = explain.CALLS.get(event.name)
            process = trace.processes.get(event.process)
            return {
                "title": formatting.call_text(event),
                "subject": f"{process.role}, process {process.pid}, thread {event.thread}" if process else "",
                "explanation": explain.explain_call(event, trace),
                "summary": entry.summary if entry else "",
                "c": entry.prototype if entry else "",
                "python": entry.python if entry else "",
                "arguments": explain.named_arguments(event),
                "data": formatting.quoted(event.data, event.size or len(event.data), 1000)
                if event.data
                else "",
                "said": said(event.data, event.size or len(event.data)).text,
                "duration": formatting.duration(event.duration) if event.until is not None else "not ended",
            }
        case Packet():
            return {
                "title": formatting.packet_text(event),
                "subject": f"{event.source} → {event.destination}",
                "explanation": explain.explain_packet(event),
                "arguments": _packet_fields(event),
                "said": said(event.data, event.size).text,
                "data": formatting.quoted(event.data, event.size, 1000) if event.data else "",
            }
        case ProcessEvent():
            process = trace.processes.get(event.process)
            subject = f"process {process.pid}" if process else ""
            return {"title": event.text, "subject": subject, "explanation": ""}
        case KernelEvent():
            subject = f"{event.source} → {event.destination}" if event.source is not None else ""
            return {"title": kernel_text(event), "subject": subject, "explanation": ""}


def _packet_fields(packet: Packet) -> list[tuple[str, str]]:
    found = [("length", str(packet.length)), ("data", f"{packet.size} bytes")]
    if packet.protocol == "tcp":
        found += [("sequence", str(packet.sequence)), ("acknowledges", str(packet.acknowledged))]
        found += [("window", str(packet.window)), ("interface", packet.interface)]
    return found
