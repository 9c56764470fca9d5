"""The services of benchmarks/native.py: a Python function of one line, called for a chunk or for a line."""

from bothends import datagram, message, stream


@stream
def chunk(data: bytes) -> bytes:
    """Capitals, a call for each chunk."""
    return data.upper()


@message
def line(message: bytes) -> bytes:
    """Capitals, a call for each line."""
    return message.upper()


@datagram
def packet(message: bytes) -> bytes:
    """Capitals, a call for each datagram."""
    return message.upper()
