import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for text in (b"one", b"two"):
        s.sendall(text)
        print(s.recv(100))
