import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connections = []
for number in range(12):
    connection, _ = listener.accept()
    connections.append(connection)
    connection.sendall(b"ticket %d\n" % number)
