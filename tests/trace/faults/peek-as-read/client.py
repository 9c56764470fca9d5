import socket
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"hello\n")
    time.sleep(1)
    s.sendall(b"quit\n")
    print(s.recv(100))
