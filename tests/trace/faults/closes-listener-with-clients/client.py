import socket, sys

port = int(sys.argv[1])
first = socket.create_connection(("127.0.0.1", port))
second = socket.create_connection(("127.0.0.1", port))
first.sendall(b"a\n")
print(first.recv(10))
second.sendall(b"b\n")
print(second.recv(10))
