import socket, struct, sys


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return data


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
while (header := read_exactly(conn, 4)) is not None:
    (length,) = struct.unpack("!I", header)
    body = read_exactly(conn, length)
    conn.sendall(struct.pack("!I", len(body)) + body[::-1])
conn.close()
