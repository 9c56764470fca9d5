import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"HELLO world")
    s.sendall(b"TEMP")
    print(s.recv(100))
    print(s.recv(100))
