import socket
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    print(s.recv(5))
time.sleep(0.7)
