import socket, struct, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    name = connection.recv(100)
    connection.sendall(b"hello " + name + b"\n" * 3_000_000)
    connection.close()
