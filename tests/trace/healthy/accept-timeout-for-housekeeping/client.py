import socket
import sys
import time

for pause in (0, 1.2):
    time.sleep(pause)
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        print(s.recv(100))
