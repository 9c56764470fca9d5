import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"measure " + b"temperature " * 10 + b"\n")
    try:
        print(s.recv(200))
    except ConnectionResetError as error:
        print(error)
