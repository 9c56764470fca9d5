import socket, sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        connection, _ = listener.accept()
        connection.sendall(connection.recv(1000))
        connection.close()
