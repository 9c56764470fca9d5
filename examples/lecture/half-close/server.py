import socket

listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
numbers = b""
while data := connection.recv(1024):  # up to the client's end of file
    numbers += data
connection.sendall(b"%d\n" % sum(map(int, numbers.split())))
connection.close()
