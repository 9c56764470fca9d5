import socket
import sys
import time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(1.2)
s.sendall(b"late")
s.settimeout(1)
try:
    print(s.recv(100))
except OSError as error:
    print(error)
