import socket, struct, sys


def put(s, key, value):
    s.sendall(struct.pack("!BB", len(key), len(value)) + key + value)
    if s.recv(2) != b"ok":
        sys.exit("the server did not store " + key.decode())


with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    put(s, b"colour", b"green")
    put(s, b"comment", b"")
