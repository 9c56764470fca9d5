import socket

listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
connection.recv(100)  # returns b"" once the client has closed
connection.close()
