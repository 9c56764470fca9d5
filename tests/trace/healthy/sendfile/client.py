import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(b"GET\n")
    total = 0
    while data := s.recv(65536):
        total += len(data)
    print(total)
