import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for message in (b"short", b"this one takes more than one recv of the server", b"end"):
        s.sendall(message)
        got = b""
        while len(got) < len(message):
            got += s.recv(100)
