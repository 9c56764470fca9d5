import socket, struct, sys


def frame(text):
    return struct.pack("!H", len(text)) + text


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(frame(b"first") + frame(b"second"))
    s.sendall(frame(b"third") + frame(b"fourth, in two parts")[:9])
    s.sendall(frame(b"fourth, in two parts")[9:])
    stream = s.makefile("rb")
    for _ in range(4):
        (length,) = struct.unpack("!H", stream.read(2))
        print(stream.read(length))
