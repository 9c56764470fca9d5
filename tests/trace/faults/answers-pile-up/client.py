import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for _ in range(200_000):
        s.sendall(b"forwards and backwards" * 40)
    s.shutdown(socket.SHUT_WR)
    total = 0
    while data := s.recv(65536):
        total += len(data)
    print(total)
