import socket
import sys
import time

address = ("127.0.0.1", int(sys.argv[1]))
silent = socket.create_connection(address)
print(silent.recv(100))
time.sleep(0.2)
with socket.create_connection(address) as talker:
    print(talker.recv(100))
    talker.sendall(b"Tom\n")
    print(talker.recv(100))
