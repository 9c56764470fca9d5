import socket
import sys
import time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    one.sendall(b"rock\n")
    time.sleep(1.5)  # the second player is late
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as two:
        two.sendall(b"paper\n")
        print(one.makefile().readline(), two.makefile().readline())
