"""Type stubs of the load generator in C (native/generator/*.c)."""

from array import array
from collections.abc import Callable, Iterator
from typing import Any

def run(
    *,
    like: int,
    sends: bytes,
    send_offsets: array[int],
    answers: bytes,
    answer_offsets: array[int],
    end: int,
    numbers: bool,
    reconnect: bool,
    requests_per_connection: int,
    connections: int,
    depth: int,
    begin: int,
    warmup: int,
    duration: int,
    timeout: int,
    unresponsive_after: int,
    receive_buffer: int,
    sources: bytes,
    times: Iterator[Any] | None,
    batch: bool,
    http: tuple[bytes, bool, bytes | None, int] | None,
    on_progress: Callable[[int, int, int], None] | None,
    on_measurement_start: Callable[[], None] | None,
    on_measurement_end: Callable[[], None] | None,
) -> dict[str, Any]: ...
