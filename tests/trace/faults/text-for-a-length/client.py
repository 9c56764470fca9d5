import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"STATUS all sensors\n")
    try:
        print(s.recv(100))
    except ConnectionResetError as error:
        print(error)
