"""The services of benchmarks/native.py: one-line functions called for each chunk, line or datagram."""

from bothends import datagram, message, stream


@stream
def chunk(data: bytes) -> bytes:
    """Convert a chunk to upper case."""
    return data.upper()


@message
def line(message: bytes) -> bytes:
    """Convert a line to upper case."""
    return message.upper()


@datagram
def packet(message: bytes) -> bytes:
    """Convert a datagram to upper case."""
    return message.upper()
