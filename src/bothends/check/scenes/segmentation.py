"""Ways in which the network or a client may deliver the texts of a scene to the server. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from bothends.check.scenes.steps import SendTexts, Step
from bothends.check.scenes.template import TextTemplate

_LONG_INTERVAL: Final = 0.05  # seconds: a waiting server reads each piece by itself
_BYTE_INTERVAL: Final = 0.02  # seconds, between bytes
_MAX_SINGLE: Final = 50  # bytes at each end of a text that are sent one by one
_MAX_BYTEWISE: Final = 1.0  # seconds for one text; the bytes of a long one follow each other faster


@dataclass(frozen=True, slots=True)
class Segmentation:
    """How the bytes of one write reach the server.

    `cut` returns the pieces; `interval` the seconds between them, by the number of bytes.
    """

    cut: Callable[[bytes], list[bytes]]
    interval: Callable[[int], float] = lambda _size: _LONG_INTERVAL


def _bytes_of(data: bytes) -> list[bytes]:
    """Return single bytes; of a long text only those of its beginning and end, to be done in time."""
    if len(data) <= 2 * _MAX_SINGLE:
        return [data[at : at + 1] for at in range(len(data))]
    return [*_bytes_of(data[:_MAX_SINGLE]), data[_MAX_SINGLE:-_MAX_SINGLE], *_bytes_of(data[-_MAX_SINGLE:])]


def _halves(data: bytes) -> list[bytes]:
    middle = len(data) // 2
    return [piece for piece in (data[:middle], data[middle:]) if piece]


WHOLE: Final = Segmentation(lambda data: [data])
BYTEWISE: Final = Segmentation(
    _bytes_of, lambda size: min(_BYTE_INTERVAL, _MAX_BYTEWISE / max(1, min(size, 2 * _MAX_SINGLE)))
)
CUT: Final = Segmentation(_halves)


def join_sends(steps: tuple[Step, ...], is_datagram: Callable[[str], bool]) -> tuple[Step, ...]:
    """Return the steps with consecutive texts of one client, on a stream, in one write."""
    joined: list[Step] = []
    for step in steps:
        last = joined[-1] if joined else None
        if (
            isinstance(step, SendTexts)
            and isinstance(last, SendTexts)
            and step.client == last.client
            and not is_datagram(step.client)
        ):
            texts: tuple[TextTemplate, ...] = (*last.texts, *step.texts)
            joined[-1] = replace(last, texts=texts, source=f"{last.source}, {step.source}")
        else:
            joined.append(step)
    return tuple(joined)
