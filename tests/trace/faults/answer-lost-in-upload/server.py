"""Takes small uploads; refuses large ones by their header."""
import socket
import sys

LIMIT = 100_000


def read_head(conn):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = conn.recv(1024)
        if not piece:
            return None, b""
        head += piece
    head, _, rest = head.partition(b"\r\n\r\n")
    return head.decode(), rest


def content_length(head):
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    return 0


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
head, body = read_head(conn)
if content_length(head) > LIMIT:
    conn.sendall(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 10\r\nConnection: close\r\n\r\ntoo large\n")
conn.close()
listener.close()
