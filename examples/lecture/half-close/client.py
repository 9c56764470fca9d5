import socket

connection = socket.create_connection(("127.0.0.1", 12000))
connection.sendall(b"1 2 3\n")
connection.sendall(b"4 5 6\n")
connection.shutdown(socket.SHUT_WR)  # the end of what is sent; the answer still comes
print(connection.recv(100).decode(), end="")
connection.close()
