import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for path in (b"/a", b"/slow", b"/b"):
        s.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    answers = b""
    while answers.count(b"done") < 3 or not answers.endswith(b"\n"):
        answers += s.recv(4096)
    s.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    while piece := s.recv(4096):
        answers += piece
        if answers.endswith(b"done /slow\n"):
            s.shutdown(socket.SHUT_WR)
print(answers.decode())
