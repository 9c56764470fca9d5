import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
values = {}
for line in connection.makefile("r"):
    match line.split():
        case ["SET", key, value]:
            values[key] = value
            connection.sendall(b"OK\n")
        case ["GET", key]:
            connection.sendall(values.get(key, "").encode() + b"\n")
