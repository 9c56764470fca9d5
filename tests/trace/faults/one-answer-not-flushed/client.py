import socket
import sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=1.5)
for command in (b"put a 1\n", b"get a\n", b"count\n"):
    s.sendall(command)
    try:
        print(s.recv(200))
    except TimeoutError:
        print("no answer to", command)
s.shutdown(socket.SHUT_WR)
s.close()
