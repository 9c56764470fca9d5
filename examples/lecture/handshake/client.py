import socket

connection = socket.create_connection(("127.0.0.1", 12000))
connection.close()
