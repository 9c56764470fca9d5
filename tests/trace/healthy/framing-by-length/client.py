import socket, struct, sys


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for message in (b"hello", b"a longer message than that", bytes(100_000)):
        s.sendall(struct.pack("!I", len(message)))
        s.sendall(message)
        (length,) = struct.unpack("!I", read_exactly(s, 4))
        assert read_exactly(s, length) == message[::-1]
