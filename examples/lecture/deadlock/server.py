import socket

listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
request = b""
while data := connection.recv(1024):  # up to the client's end of file, which never comes
    request += data
connection.sendall(request.upper())
connection.close()
