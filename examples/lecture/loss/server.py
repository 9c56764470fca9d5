import socket

listener = socket.create_server(("", 12000))
connection, _ = listener.accept()
for _ in range(2):
    connection.sendall(connection.recv(100).upper())
connection.close()
