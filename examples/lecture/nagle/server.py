import socket

listener = socket.create_server(("", 12000))
connection, _ = listener.accept()
request = b""
while not request.endswith(b"\n"):
    request += connection.recv(100)
connection.sendall(b"done\n")
connection.close()
