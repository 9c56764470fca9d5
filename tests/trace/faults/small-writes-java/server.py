import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        while header := stream.read(4):
            stream.write(stream.read(int.from_bytes(header, "big")).upper())
            stream.flush()
