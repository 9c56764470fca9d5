import socket
import sys
import time

time.sleep(0.2)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(1.4)
for _ in range(3):
    s.sendall(b"hello")
    print(s.recv(100))
    time.sleep(0.1)
s.close()
