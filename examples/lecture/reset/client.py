import socket

connection = socket.create_connection(("127.0.0.1", 12000))
connection.sendall(b"hello, server\n")
try:
    print(connection.recv(100))
except ConnectionResetError as error:
    print(error)
connection.close()
