"""Type stubs of the load generator in C (native/generator/*.c)."""

from array import array
from collections.abc import Callable, Iterator
from socket import socket
from typing import Any

def run(
    *,
    like: socket,
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
    tls: Any,
    on_progress: Callable[[int, int, int], None] | None,
    on_measurement_start: Callable[[], None] | None,
    on_measurement_end: Callable[[], None] | None,
) -> dict[str, Any]: ...
def tls_context(
    *,
    library: str,
    name: str | None,
    address: str | None,
    verify: bool,
    check_name: bool,
    ca_file: str | None,
    ca_path: str | None,
    certificate: str | None,
    key: str | None,
    alpn: bytes,
    fingerprint: bytes,
    options: int,
    verify_flags: int,
    host_flags: int,
    min_version: int,
    ciphers: str,
    security_level: int,
) -> Any: ...
