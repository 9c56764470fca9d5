import socket, struct, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    stream = s.makefile("rb")
    for size in (3, 3000, 30000):
        s.sendall(struct.pack("!I", size) + bytes(size))
        (length,) = struct.unpack("!I", stream.read(4))
        assert stream.read(length) == bytes(size)
    stream.close()
