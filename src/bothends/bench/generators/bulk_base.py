"""The contract of a bulk transfer: its plan and its outcome.

`bulk_python.py` and `bulk_native.py` implement it. Data moves in pieces of up to `CHUNK` bytes, in one thread
with epoll, over every stream transport, TLS included.

1. `echo` and `upper` use both directions at once: the data that is sent comes back, and its end is awaited.
2. `chargen` only receives. `discard` only sends, and nothing that comes back could be compared: what counts
   is what the peer's kernel has acknowledged (tcpi_bytes_acked), not what waits in buffers here. The bytes
   "sent" of the other kinds are counted likewise, except with TLS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol

from bothends.bench.bulk_pattern import BulkKind
from bothends.bench.generators.base import ProgressCallback
from bothends.bench.results import BulkSample, Faults, Load
from bothends.client.tls import TlsOptions
from bothends.endpoints import Endpoint

SAMPLE_INTERVAL: Final = 0.1
"""Seconds between samples of TCP_INFO."""

SERVER_CLOSED: Final = "the server closed it"


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """The parameters of a bulk transfer. Times in seconds. `timeout`: for connecting, and for the echo of the
    last bytes.
    """

    endpoint: Endpoint
    kind: BulkKind
    connections: int = 1
    duration: float = 1.0
    warmup: float = 0.0
    timeout: float = 1.0
    tls: TlsOptions | None = None

    def load(self) -> Load:
        """Describe the load for a result."""
        verified = {
            "discard": "nothing comes back to compare: bytes acknowledged by the peer count",
            "chargen": "every byte received, against the pattern of RFC 864",
        }
        return Load(
            f"bulk {self.kind}",
            self.endpoint.scheme,
            self.connections,
            duration_s=self.duration,
            warmup_s=self.warmup,
            timeout_s=self.timeout,
            verified=verified.get(self.kind, "every byte that came back"),
        )


@dataclass(slots=True)
class BulkOutcome:
    """The outcome of a transfer.

    Over the measured time: `seconds`, bytes `sent` (over TCP: acknowledged) and `received`, `cpu` and
    `run_queue_wait` as in `RunOutcome`. `ended`: why no connection is left; "" if one is.
    """

    seconds: float
    sent: int
    received: int
    cpu: float
    run_queue_wait: float
    faults: Faults = field(default_factory=Faults)
    ended: str = ""
    samples: list[BulkSample] = field(default_factory=list)


class BulkGenerator(Protocol):
    """Moves data according to a plan."""

    name: ClassVar[str]

    def run(self, plan: BulkPlan, on_progress: ProgressCallback | None = None) -> BulkOutcome:
        """Run a plan. `on_progress` is called several times per second.

        Raises BothendsError if a connection cannot be opened.
        """
        ...


def ended_by(reason: str) -> str:
    """Return why a transfer ended whose last connection ended for a reason."""
    return f"no connection is left: {reason}"


def not_sent(size: int) -> str:
    """Describe bytes that came back without having been sent."""
    return f"{size:,} bytes that were not sent"


def other_bytes(count: int) -> str:
    """Describe a difference that follows `count` right bytes."""
    return f"other bytes after the first {count:,}"
