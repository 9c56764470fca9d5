import socket

connection = socket.create_connection(("10.0.0.1", 12000))
connection.send(b"header ")
connection.send(b"body")  # small, and the header is not acknowledged yet: it waits
connection.send(b"\n")
connection.recv(100)
connection.close()
