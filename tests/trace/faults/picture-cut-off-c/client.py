import socket, struct, sys


def exactly(s, size):
    data = b""
    while len(data) < size:
        data += s.recv(size - len(data))
    return data


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"picture")
    (size,) = struct.unpack("!I", exactly(s, 4))
    print(len(exactly(s, size)))
