"""native/generator/module.c"""

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
    each: int,
    connections: int,
    depth: int,
    begin: int,
    warmup: int,
    duration: int,
    timeout: int,
    gone: int,
    receive_buffer: int,
    sources: bytes,
    times: Iterator[Any] | None,
    batch: bool,
    watch: Callable[[int, int, int], None] | None,
    began: Callable[[], None] | None,
    ended: Callable[[], None] | None,
) -> dict[str, Any]: ...
