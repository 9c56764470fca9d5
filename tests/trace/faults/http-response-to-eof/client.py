import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30) as s:
    s.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    response = b""
    while piece := s.recv(4096):
        response += piece
print(response.decode())
