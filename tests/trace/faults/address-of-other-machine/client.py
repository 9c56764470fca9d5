import socket, sys

import time

time.sleep(0.5)
s = socket.socket()
s.connect(("127.0.0.1", int(sys.argv[1])))
print(s.recv(10))
