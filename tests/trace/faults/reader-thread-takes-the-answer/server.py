import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
for line in connection.makefile("rb"):
    connection.sendall(b"done: " + line)
