import socket

listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
connection.recv(4)  # the rest of "hello, server" stays unread
connection.close()  # so the kernel answers with RST
