import hashlib
import os
import socket
import sys

for size in (4000, 200_000):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        data = os.urandom(size)
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        answer = b""
        while more := s.recv(32 - len(answer)):
            answer += more
        print(answer == hashlib.sha256(data).digest())
