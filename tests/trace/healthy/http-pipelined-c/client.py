import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for method in ("GET", "HEAD", "GET"):
        s.sendall(method.encode() + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    s.shutdown(socket.SHUT_WR)
    data = b""
    while piece := s.recv(65536):
        data += piece
    print(len(data))
