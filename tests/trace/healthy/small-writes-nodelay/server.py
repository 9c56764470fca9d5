import socket, sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("r") as lines:
            while True:
                key = lines.readline()
                value = lines.readline()
                if not value:
                    break
                connection.sendall(b"stored %d\n" % len(key + value))
