import socket

connection = socket.create_connection(("10.0.0.1", 12000))
for number in range(2):
    connection.sendall(b"message %d\n" % number)
    connection.recv(100)
connection.close()
