import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"echo me")
    answer = b""
    while data := s.recv(100):
        answer += data
    print(answer)
