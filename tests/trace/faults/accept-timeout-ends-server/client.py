import sys
import socket, time
for i in range(3):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s: s.sendall(b"row %d" % i); print(s.recv(100))
    time.sleep(.1 + i)
