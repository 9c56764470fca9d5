import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
while block := connection.recv(2000):
    connection.sendall(block[::-1])
connection.shutdown(socket.SHUT_WR)
