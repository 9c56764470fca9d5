import socket
import struct
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s, s.makefile("rb") as stream:
    payload = b""
    while payload != b"end":
        (size,) = struct.unpack("!I", stream.read(4))
        payload = stream.read(size)
        print(payload)
