import socket
import sys
import time


def connect(port):
    for _ in range(50):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise SystemExit("no proxy")


s = connect(int(sys.argv[1]))
document = b"all work and no play " * 2000
s.sendall(document)
s.shutdown(socket.SHUT_WR)
print(s.makefile().readline().strip())
s.close()
