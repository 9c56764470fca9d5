import socket
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for number in range(8):
        s.sendall(b"line %d\n" % number)
        print(s.recv(100))
        time.sleep(0.05)
