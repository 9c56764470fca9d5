"""One connection that is kept for later, and one that comes meanwhile."""
import socket
import sys

address = ("127.0.0.1", int(sys.argv[1]))
with socket.create_connection(address) as first:
    first.sendall(b"one")
    assert first.recv(100) == b"one"
    with socket.create_connection(address) as second:
        second.sendall(b"two")
        assert second.recv(100) == b"two"
    first.sendall(b"three")
    assert first.recv(100) == b"three"
