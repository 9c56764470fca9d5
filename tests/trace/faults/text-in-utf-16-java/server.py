import socket
import sys
import time

with socket.create_server(("", int(sys.argv[1]))) as listener:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                if line.strip() == b"TIME":
                    stream.write(time.ctime().encode() + b"\n")
                    stream.flush()
