import socket
import struct
import sys


def receive(stream):
    return stream.read(struct.unpack("!I", stream.read(4))[0])


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    stream = connection.makefile("rb")
    connection.sendall(b"".join(struct.pack("!I", len(each)) + each for each in (b"one", b"two", b"three")))
    assert [receive(stream) for _ in range(3)] == [b"ONE", b"TWO", b"THREE"]
    assert receive(stream) == b"news"
