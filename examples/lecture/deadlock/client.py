import socket

connection = socket.create_connection(("127.0.0.1", 12000))
connection.sendall(b"hello\n")
print(connection.recv(1024))  # no shutdown(SHUT_WR) before it
connection.close()
