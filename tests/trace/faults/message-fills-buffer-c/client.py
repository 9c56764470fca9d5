import socket
import sys

for size in (100, 700, 768):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall((b"0123456789abcdef" * 48)[:size])
        answer = b""
        while piece := s.recv(4096):
            answer += piece
        print(size, answer[:10])
