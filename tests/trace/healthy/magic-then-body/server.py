import socket
import sys

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    for _ in range(3):
        connection, _ = listener.accept()
        with connection:
            magic = connection.recv(4, socket.MSG_WAITALL)
            if magic != b"SAVE":
                continue  # a wrong version is hung up on
            received = 0
            while data := connection.recv(65536):
                received += len(data)
            connection.sendall(b"%d\n" % received)
